"""Grid of a Pallas call, evaluated on the host: executions of its conditional blocks, bytes that its blocks copy.

A program's steps are known before it runs where its schedule in scalar memory is: predicates of `pl.when` and index
maps depend on it and on the step alone.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from kernels._fused import Op, Target, primitives

LOOPS = ("while", "scan")
MOST = 1 << 22  # elements of an array that is evaluated
UNROLLED = 64  # turns of a loop that are evaluated one by one
Values = dict[Any, Any]
Products = tuple[tuple[int, int, int], ...]


class _Found(list[Any]):
    """The calls found for a target."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target


@dataclasses.dataclass(frozen=True)
class Grid:
    """A call: its name, shapes of its results, steps, conditional blocks with vector work, and bytes of all copies.

    `visits` are the executions of each block, None where the predicate needs more than the step and the schedule, and
    `parents` the block around it, None for the kernel itself. A block is `settled` if it runs in every step, or in
    none, whatever the schedule says.
    `products` are the matrix products (rows, contracted, columns) of each block, of the code outside of them last.
    `bytes` counts a copy for each change of a block's index, `once_bytes` one for each block that is used,
    `least_bytes` one for each operand and result. `parallel` is true if a grid axis of several steps may be divided
    between cores.
    """

    name: str | None
    results: tuple[tuple[int, ...], ...]
    steps: int
    visits: tuple[int | None, ...]
    parents: tuple[int | None, ...]
    settled: tuple[bool, ...]
    products: tuple[Products, ...]
    bytes: int
    once_bytes: int
    least_bytes: int
    parallel: bool


def grids(function: Callable[..., Any], *arguments: Any, kind: str = "") -> list[Grid]:
    """The Pallas calls of a function, in program order. Arguments that are arrays are known, and so are constants.

    `kind` is the device's, as in `Target`.
    """
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    closed = jax.make_jaxpr(lambda *x: function(*jax.tree.unflatten(tree, x)))(*shapes)
    known = [None if isinstance(x, jax.ShapeDtypeStruct) else np.asarray(x) for x in leaves]
    found = _Found(Target("tpu", kind=kind))
    _walk(closed.jaxpr, [*closed.consts], known, found)
    return found


def _walk(jaxpr: Any, consts: list[Any], values: list[Any], found: _Found) -> list[Any]:
    """Add the calls of a jaxpr, and give its results where they are known."""
    known: Values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *values]))

    def value(x: Any) -> Any:
        return x.val if isinstance(x, jax.extend.core.Literal) else known.get(x)

    for equation in jaxpr.eqns:
        inputs = [value(x) for x in equation.invars]
        known |= dict(zip(equation.outvars, _equation(equation, inputs, found)))
    return [value(x) for x in jaxpr.outvars]


def _equation(equation: Any, inputs: list[Any], found: _Found) -> list[Any]:
    unknown = [None] * len(equation.outvars)
    if equation.primitive.name == "pallas_call":
        found.append(_grid(equation, inputs))
        return unknown
    if isinstance(equation.params.get("op"), Op):
        inner = _lowered(equation, found.target)
        return _walk(inner.jaxpr, inner.consts, inputs, found)
    subs = _jaxprs(equation)
    if len(subs) == 1 and len(subs[0].jaxpr.invars) == len(inputs):
        results = _walk(subs[0].jaxpr, subs[0].consts, inputs, found)
        return results if len(results) == len(unknown) and equation.primitive.name not in LOOPS else unknown
    # Random numbers are no part of a schedule, and those of a model's parameters would take minutes.
    if equation.primitive.name.startswith("random") or subs or any(x is None for x in inputs):
        return unknown
    if any(x.aval.size > MOST for x in equation.outvars):
        return unknown
    results = equation.primitive.bind(*map(jnp.asarray, inputs), **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


def _lowered(equation: Any, target: Target) -> Any:
    """The jaxpr of a fused op as it is compiled for one TPU."""
    kind = equation.primitive.name.rsplit("_", 1)[-1]
    compute = getattr(primitives, f"_{kind}" if kind in ("tangent", "backward") else "_forward")
    shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars]
    return jax.make_jaxpr(lambda *x: compute(False, target, *x, **equation.params))(*shapes)


def _grid(equation: Any, inputs: list[Any]) -> Grid:
    mapping = equation.params["grid_mapping"]
    steps = math.prod(mapping.grid)
    ids = [x.reshape(-1).astype(np.int32) for x in np.indices(mapping.grid)] or [np.zeros(1, np.int32)]
    tables = [None if x is None else np.asarray(x) for x in inputs[: mapping.num_index_operands]]
    blocks = _Blocks(ids, mapping.grid)
    kernel = equation.params["jaxpr"]
    blocks.run(kernel, [*tables, *[None] * (len(kernel.invars) - len(tables))], np.ones(len(ids[0]), bool))
    blind = _Blocks(ids, mapping.grid)
    blind.run(kernel, [None] * len(kernel.invars), np.ones(len(ids[0]), bool))
    settled = tuple(n in (0, steps) for n in blind.counts)
    copied = [_copied(x, ids, mapping.grid, tables) for x in mapping.block_mappings]
    axes = getattr(equation.params["compiler_params"], "dimension_semantics", None) or ()
    parallel = any("parallel" in str(axis).lower() and size > 1 for axis, size in zip(axes, mapping.grid))
    products = (*map(tuple, blocks.products[1:]), tuple(blocks.products[0]))
    total, once, least = (sum(x) for x in zip(*copied))
    results = tuple(x.aval.shape for x in equation.outvars)
    name, visits, parents = equation.params["name"], tuple(blocks.counts), tuple(blocks.parents)
    return Grid(name, results, steps, visits, parents, settled, products, total, once, least, parallel)


def _jaxprs(equation: Any) -> list[Any]:
    """The closed jaxprs of an equation."""
    subs = [x for x in jax.tree.leaves(list(equation.params.values())) if hasattr(x, "eqns")]
    return [x if hasattr(x, "jaxpr") else jax.extend.core.ClosedJaxpr(x, ()) for x in subs]


class _Blocks:
    """Evaluation of a kernel's scalars at all steps at once, and the executions of its conditional blocks."""

    def __init__(self, ids: list[np.ndarray], grid: tuple[int, ...]) -> None:
        self.ids, self.grid, self.counts, self.parents = ids, grid, [], []
        self.products, self.open = [[]], [(0, 1)]

    def run(self, jaxpr: Any, values: list[Any], active: Any) -> list[Any]:
        """The results of a jaxpr, None where unknown; `active` marks the steps that run it, None if unknown."""
        known: Values = dict(zip(jaxpr.invars, values))
        known |= dict(zip(jaxpr.constvars, [None] * len(jaxpr.constvars)))

        def value(x: Any) -> Any:
            return x.val if isinstance(x, jax.extend.core.Literal) else known.get(x)

        for equation in jaxpr.eqns:
            inputs = [value(x) for x in equation.invars]
            known |= dict(zip(equation.outvars, self._equation(equation, inputs, active)))
        return [value(x) for x in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any], active: Any) -> list[Any]:
        name, unknown = equation.primitive.name, [None] * len(equation.outvars)
        if name == "program_id":
            return [self.ids[equation.params["axis"]]]
        if name == "num_programs":
            return [np.int32(self.grid[equation.params["axis"]])]
        if name == "cond":
            return self._cond(equation, inputs, active)
        if name == "get":
            return [_read(equation, inputs)]
        if name in ("pjit", "jit", "closed_call"):
            return self.run(equation.params["jaxpr"].jaxpr, inputs, active)
        if name == "scan" and equation.params["length"] <= UNROLLED and _is_plain(equation):
            return self._turns(equation, inputs, active)
        if name in ("while", "scan"):
            block, times = self.open[-1]
            self.open.append((block, times * equation.params.get("length", 1)))
            for sub in _jaxprs(equation):
                self.run(sub.jaxpr, [None] * len(sub.jaxpr.invars), None)
            self.open.pop()
            return unknown
        if name == "multiple_of":
            return inputs[:1]
        if name == "dot_general":
            block, times = self.open[-1]
            self.products[block] += [_product(equation)] * times
            return unknown
        if any(x is None for x in inputs) or not inputs or any(np.size(x.aval) > 1 for x in equation.outvars):
            return unknown
        return [_vectorised(equation, inputs)] if len(unknown) == 1 else unknown

    def _turns(self, equation: Any, inputs: list[Any], active: Any) -> list[Any]:
        """The results of a loop of few turns, whose conditional blocks are there once for all of them."""
        jaxpr, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
        fixed = len(jaxpr.invars) - len(jaxpr.outvars)
        consts, carry = inputs[:fixed], inputs[fixed:]
        block, times = self.open[-1]
        first = len(self.counts)
        self.open.append((block, times * length))
        carry = self.run(jaxpr, [*consts, *carry], active)
        self.open.pop()
        for _ in range(length - 1):
            turn = _Blocks(self.ids, self.grid)
            carry = turn.run(jaxpr, [*consts, *carry], active)
            for place, count in enumerate(turn.counts, first):
                so_far = self.counts[place]
                self.counts[place] = None if count is None or so_far is None else so_far + count
        return carry

    def _cond(self, equation: Any, inputs: list[Any], active: Any) -> list[Any]:
        index, *rest = inputs
        branches = [x.jaxpr for x in equation.params["branches"]]
        for number in reversed(range(len(branches))):
            runs = None if index is None or active is None else active & (np.asarray(index) == number)
            block, times = self.open[-1]
            if _has_vectors(branches[number]):
                self.counts.append(None if runs is None else int(runs.sum()))
                self.parents.append(block - 1 if block else None)
                self.products.append([])
                block, times = len(self.counts), 1
            self.open.append((block, times))
            self.run(branches[number], rest, runs)
            self.open.pop()
        return [None] * len(equation.outvars)


def _is_plain(scan: Any) -> bool:
    """True for a loop over a counter: nothing is read or stacked turn by turn."""
    jaxpr = scan.params["jaxpr"].jaxpr
    shapes = lambda values: [np.shape(x.val) if hasattr(x, "val") else x.aval.shape for x in values]
    pairs = (scan.invars, jaxpr.invars), (scan.outvars, jaxpr.outvars)
    return all(shapes(outer) == shapes(inner) for outer, inner in pairs)


def _has_vectors(jaxpr: Any) -> bool:
    def wide(equation: Any) -> bool:
        return any(math.prod(getattr(x.aval, "shape", ())) >= 128 for x in equation.outvars)

    return any(wide(x) or any(_has_vectors(y.jaxpr) for y in _jaxprs(x)) for x in jaxpr.eqns)


def _product(equation: Any) -> tuple[int, int, int]:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, right = (x.aval.shape for x in equation.invars)
    inner = math.prod(left[i] for i in contracted)
    return math.prod(left) // inner, inner, math.prod(right) // inner


def _vectorised(equation: Any, inputs: list[Any]) -> Any:
    lanes = [0 if np.ndim(x) else None for x in inputs]
    call = lambda *x: equation.primitive.bind(*x, **equation.params)
    values = [np.asarray(x) for x in inputs]
    return np.asarray(jax.vmap(call, lanes)(*values) if 0 in lanes else call(*values))


def _read(equation: Any, inputs: list[Any]) -> Any:
    """A load of one number from a known table."""
    table, *indices = inputs
    if table is None or any(x is None for x in indices):
        return None
    transforms = jax.tree.unflatten(equation.params["tree"], indices)
    if len(transforms) != 1 or any(not isinstance(x, (int, np.integer, np.ndarray)) for x in transforms[0].indices):
        return None
    return np.asarray(table)[tuple(transforms[0].indices)]


def _copied(block: Any, ids: list[np.ndarray], grid: tuple[int, ...], tables: list[Any]) -> tuple[int, int, int]:
    """Bytes of an operand: copied by the pipeline at each change of a block's index, of each block once, of all."""
    aval = block.array_aval
    whole = math.prod(aval.shape) * aval.dtype.itemsize
    jaxpr = block.index_map_jaxpr.jaxpr
    values = [*ids[: len(grid)], *tables]
    index = _Blocks(ids, grid).run(jaxpr, values[: len(jaxpr.invars)], np.ones(len(ids[0]), bool))
    if any(x is None for x in index):
        return whole, whole, whole
    index = np.stack([np.broadcast_to(x, ids[0].shape) for x in index])
    changes = 1 + int((index[:, 1:] != index[:, :-1]).any(0).sum())
    size = math.prod(x if isinstance(x, int) else getattr(x, "block_size", 1) for x in block.block_shape)
    blocks, size = np.unique(index, axis=1).shape[1], size * aval.dtype.itemsize
    return changes * size, blocks * size, whole
