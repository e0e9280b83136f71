"""Export to ONNX by jax2onnx, the extra `onnx`: of a program in which every fused op is ordinary JAX."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array, PyTree

from eqxgen._jaxpr import CALLS

FAULTS = (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError)
"""Errors of jax2onnx where it has no operator, or not for these arguments."""


class Exported(NamedTuple):
    """A file of ONNX.

    Attributes:
        path: of the file.
        inputs, outputs: their names, in the order of the arguments' and the results' arrays.
        operators: number of nodes by type.
        error: largest difference from JAX on the example, relative to the largest entry of the result; NaN where
            onnxruntime is not installed.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    error: float


def to_onnx(function: Callable, *example: PyTree, path: str | Path) -> Exported:
    """Writes a function of arrays, such as a model in inference, as ONNX, and compares both on the example.

    Shapes are those of the example. What the function closes over, such as weights, is in the file. Attention and norms
    become the operators of their definition in ordinary JAX.

    Args:
        function: called as `function(*example)`.
        example: arrays.
        path: of the file to write.

    Raises:
        ModuleNotFoundError: jax2onnx is not installed.
        ValueError: the folder of `path` is not there; the program has an operation that ONNX or jax2onnx lacks, or the
            file gives other numbers than JAX; the message names it. Nothing is left at `path`.
    """
    if importlib.util.find_spec("jax2onnx") is None:
        raise ModuleNotFoundError('to_onnx needs jax2onnx: pip install "eqxgen[onnx]"')
    from jax2onnx import to_onnx as convert

    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"path must be in a folder that is there: got {str(path)!r}")
    leaves, structure = jax.tree.flatten(example)
    leaves = [x if isinstance(x, jax.Array) else np.asarray(x, jnp.result_type(x)) for x in leaves]
    flat = lambda *arrays: tuple(jax.tree.leaves(function(*jax.tree.unflatten(structure, arrays))))
    shapes = [jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves]
    # Traced before jax2onnx, which puts functions of its own in the place of jax.numpy's while it traces.
    program = ordinary(flat, *shapes)
    with _quiet():
        try:
            model = convert(lambda *arrays: tuple(_run(program.jaxpr, program.consts, arrays)), shapes)
        except FAULTS as error:
            raise ValueError(f"to_onnx {path}: jax2onnx cannot convert the program: {_first_line(error)}") from error
    graph = model.graph
    names = lambda values: tuple(value.name for value in values)
    operators: dict[str, int] = {}
    for node in graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    path.write_bytes(model.SerializeToString())
    try:
        error = _error(path, jax.jit(flat)(*leaves), leaves)
    except ValueError:
        path.unlink()
        raise
    return Exported(path, names(graph.input), names(graph.output), operators, error)


def ordinary(function: Callable, *shapes: Any) -> Any:
    """The program of a function (a closed jaxpr) in which fused ops are ordinary JAX, calls are inlined, and nothing
    depends on the platform.

    Args:
        function: of arrays, to a tuple of arrays.
        shapes: arrays, or their shapes and types.
    """
    traced = jax.make_jaxpr(function)(*shapes)
    return jax.make_jaxpr(lambda *arrays: tuple(_run(traced.jaxpr, traced.consts, arrays)))(*shapes)


def _error(path: Path, expected: Sequence[Any], leaves: Sequence[Any]) -> float:
    """The largest relative difference of onnxruntime's results."""
    if importlib.util.find_spec("onnxruntime") is None:
        return float("nan")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    faults = (states.Fail, states.InvalidArgument, states.InvalidGraph, states.NotImplemented, states.RuntimeException)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # without a line for each constant that it leaves out
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        if len(names) != len(leaves):
            raise ValueError(
                f"to_onnx {path}: the program must use every array of the example: got {len(leaves)}, "
                f"of which {len(names)} are used"
            )
        found = session.run(None, dict(zip(names, map(np.asarray, leaves))))
    except faults as error:
        raise ValueError(f"to_onnx {path}: onnxruntime cannot run the file: {_first_line(error)}") from error
    worst = 0.0
    for x, y in zip(expected, found, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if x.shape != y.shape:
            raise ValueError(f"to_onnx {path}: a result must have shape {x.shape}: onnxruntime gives {y.shape}")
        size = float(np.max(np.abs(x), where=np.isfinite(x), initial=1e-30))
        with np.errstate(invalid="ignore"):
            apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y) / size)
        worst = float(np.max(apart, initial=worst))  # NaN if any is
    if not worst < 1e-3:
        raise ValueError(f"to_onnx {path}: onnxruntime must give JAX's numbers: the largest difference is {worst:.1e}")
    return worst


def _run(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The results of a program, whose fused ops run as ordinary JAX and whose calls are inlined."""
    env: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments)))
    read = lambda var: var.val if isinstance(var, Literal) else env[var]
    for equation in jaxpr.eqns:
        env.update(zip(equation.outvars, _step(equation, [read(var) for var in equation.invars])))
    return [read(var) for var in jaxpr.outvars]


def _step(equation: Any, values: list[Any]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if hasattr(params.get("op"), "exported"):
        return tuple(params["op"].exported(*values))
    if name in CALLS:
        inner = params[CALLS[name]]
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
    if name == "dot_general" and not params["dimension_numbers"][0][0]:
        x, y = values
        return (_outer(x, y, params["dimension_numbers"][1]).astype(equation.outvars[0].aval.dtype),)
    if name == "pad" and any(inner for *_, inner in params["padding_config"]):
        x, fill = values
        return (_padded(x, fill, params["padding_config"]),)
    if name == "scan":
        return _scan(params, values)
    if name == "platform_index":
        return (np.int32(0),)  # of the branches of jax.lax.platform_dependent, which are chosen below
    if name == "cond":
        index, *given = values
        if params.get("branches_platforms") is not None:  # the last is for every platform
            of = params["branches"][-1]
            return _run(of.jaxpr, of.consts, given)
        branches = [lambda *given, of=of: tuple(_run(of.jaxpr, of.consts, given)) for of in params["branches"]]
        return jax.lax.switch(index, branches, *given)
    if name == "while":
        first, second = params["cond_nconsts"], params["body_nconsts"]
        tests, bodies, start = values[:first], values[first : first + second], values[first + second :]
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        return jax.lax.while_loop(
            lambda carry: _run(test.jaxpr, test.consts, [*tests, *carry])[0],
            lambda carry: tuple(_run(body.jaxpr, body.consts, [*bodies, *carry])),
            tuple(start),
        )
    bound = equation.primitive.get_bind_params(params)  # with functions in front before jax 0.10
    functions, own = bound if isinstance(bound, tuple) else ((), bound)
    found = equation.primitive.bind(*functions, *values, **own)
    return found if equation.primitive.multiple_results else (found,)


def _outer(x: Array, y: Array, shared: tuple[Sequence[int], Sequence[int]]) -> Array:
    """A product that sums over no axis, of which jax2onnx 0.17 writes an einsum of other ranks, by broadcasting.

    Args:
        shared: axes of x, and the same of y, that come first in the result, before the others of x and those of y.
    """
    first, second = (
        jnp.moveaxis(value, axes, range(len(axes))) for value, axes in zip((x, y), map(tuple, shared), strict=True)
    )
    count = len(shared[0])
    own = (1,) * (y.ndim - count)
    return first.reshape(*first.shape, *own) * jnp.expand_dims(second, tuple(range(count, x.ndim)))


def _padded(x: Array, fill: Array, config: Sequence[tuple[int, int, int]]) -> Array:
    """`jax.lax.pad` without padding between entries, which ONNX lacks: each entry becomes one with padding after it."""
    for axis, (_, _, inner) in enumerate(config):
        if inner:
            count, plain = x.shape[axis], [(0, 0, 0)] * x.ndim
            apart = jax.lax.pad(
                jnp.expand_dims(x, axis + 1), fill, [*plain[: axis + 1], (0, inner, 0), *plain[axis + 1 :]]
            )
            joined = apart.reshape(*x.shape[:axis], count * (inner + 1), *x.shape[axis + 1 :])
            x = jax.lax.slice_in_dim(joined, 0, max(0, count * (inner + 1) - inner), axis=axis)
    return jax.lax.pad(x, fill, [(low, high, 0) for low, high, _ in config])


def _scan(params: Any, values: list[Any]) -> Sequence[Any]:
    consts, carry = params["num_consts"], params["num_carry"]
    fixed, start, rows = values[:consts], values[consts : consts + carry], values[consts + carry :]
    body = params["jaxpr"]

    def step(state: Any, row: Any) -> tuple[Any, Any]:
        found = _run(body.jaxpr, body.consts, [*fixed, *state, *row])
        return tuple(found[:carry]), tuple(found[carry:])

    last, results = jax.lax.scan(
        step, tuple(start), tuple(rows), length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return (*last, *results)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of jax2onnx and of the libraries that it imports, and without its `jax.numpy.cumsum`, which
    takes no axis by position and would stay.
    """
    before, cumsum = logging.root.manager.disable, jnp.cumsum
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        jnp.cumsum = cumsum


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
