"""Run by test_op_meshes.py in a process of its own: attention, norms and grouped products on eight virtual devices, sharded over explicit,
automatic and manual mesh axes. Prints, as JSON, the cases that fail and why, for each kind of axes.

Results, gradients and the shardings of results are compared with those of one device and of the operands. EQXGEN_FULL=1
takes every case, layout and kind.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bench.ops.attention_shapes import ATTENTION, MASKS, Attention
from bench.ops.norm_shapes import Case as NormCase
from kernels import grouped_matmul, layer_norm
from tests.arrays import drawn, integers
from tests.full import FULL
from tests.kernels.attention_cases import call, inputs

BATCH, WIDE = 8, {"batch": 8, "heads": 4, "kv_heads": 2}
SIZES = {"data": 4, "model": 2}
Layout = dict[str, str]
BY_BATCH, BY_HEADS, BY_QUERIES = {"b": "data"}, {"b": "data", "h": "model"}, {"b": "data", "q": "model"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A call on `arrays`; `axes` has a letter for each axis of each of its leaves, `out` for those of each result."""

    call: Callable[[Any], tuple]
    arrays: Any
    axes: list[str]
    out: tuple[str, ...]
    layouts: tuple[Layout, ...]
    splits: bool = True  # a device's part is the call on its part of the arrays

    def spec(self, axes: str, shape: tuple[int, ...], layout: Layout) -> PartitionSpec:
        return PartitionSpec(*(layout.get(a) if size > 1 else None for a, size in zip(axes, shape)))

    def specs(self, layout: Layout) -> Any:
        leaves, tree = jax.tree.flatten(self.arrays)
        return tree.unflatten(self.spec(a, x.shape, layout) for a, x in zip(self.axes, leaves, strict=True))


def attention(case: Attention, *layouts: Layout, implementation: str | None = None, vmap: bool = False) -> Case:
    arrays, rest = inputs(case)
    mask = jax.tree.map(jnp.asarray, rest.pop("mask", None))
    names = {"query": "bqhx", "key": "bkhx", "value": "bkhx", "bias": "bhqk", "slopes": "h"}
    axes = [names[name] for name in sorted(arrays)]
    if jax.tree.leaves(mask):  # a neighbourhood makes its tables when it is called
        axes += [a for a, x in zip(mask.axes, mask.arrays()) if not isinstance(x, int)]
    function = lambda both: call(both[0], rest | {"mask": both[1]}, implementation)
    calls = jax.vmap(function) if vmap else function
    return Case(calls, (arrays, mask), axes, ("bqhx", "bqh"), layouts, splits=not case.dropout_rate)


def norm(case: NormCase, *layouts: Layout, implementation: str | None = None) -> Case:
    arrays = jax.tree.map(jnp.asarray, case.arguments())
    axes = ["bsc"[-x.ndim :] if x.ndim < 3 else "bsc" for x in jax.tree.leaves(arrays)]
    results = lambda arrays: tuple(jax.tree.leaves(case.call(arrays, implementation)))
    return Case(results, arrays, axes, ("bsc",) * (2 if case.residual else 1), layouts)


def grouped(*layouts: Layout) -> Case:
    arrays = {"groups": integers((BATCH, 11), 4, 2), "weight": drawn((4, 3, 5), 1), "x": drawn((BATCH, 11, 5))}
    product = jax.vmap(grouped_matmul, (0, None, 0))
    results = lambda given: (product(given["x"], given["weight"], given["groups"]),)
    return Case(results, arrays, ["br", "goi", "bri"], ("bro",), layouts)


def cases() -> dict[str, Case]:
    segments = lambda length, **more: Attention(q_seq=length, kv_seq=length, mask=MASKS["segments"], **WIDE | more)
    adaptive = NormCase("layer_norm", (BATCH, 5, 12), bias=True, residual=True, modulation=(BATCH, 1, 12))
    groups = NormCase(
        "group_norm", (BATCH, 5, 12), bias=True, modulation=(12,), options=(("groups", 3), ("activation", "silu"))
    )
    channels = {"b": "data", "c": "model"}
    short = {
        "grouped heads": attention(segments(37), BY_HEADS),
        "length 300": attention(segments(300, kv_heads=4), BY_BATCH),
        "adaptive layer norm": norm(adaptive, BY_BATCH),
        "group norm": norm(groups, BY_BATCH),
        "grouped matmul": grouped(BY_BATCH),
    }
    if not FULL:
        return short
    every = {name: attention(dataclasses.replace(case, **WIDE), BY_BATCH, BY_HEADS) for name, case in ATTENTION.items()}
    return (
        short
        | every
        | {
            "length 300, heads": attention(segments(300), BY_HEADS, BY_QUERIES),
            "length 1,024": attention(
                Attention(q_seq=1024, kv_seq=1024, mask=MASKS["causal"], **WIDE), BY_BATCH, BY_HEADS
            ),
            "queries": attention(segments(38), BY_QUERIES),
            "reference": attention(segments(38), BY_BATCH, BY_HEADS, BY_QUERIES, implementation="reference"),
            "vmap": attention(Attention(q_seq=37, kv_seq=37, **WIDE), BY_BATCH, vmap=True),
            "vmap, length 300": attention(Attention(q_seq=300, kv_seq=300, **WIDE), BY_BATCH, vmap=True),
            "layer norm of split channels": norm(adaptive, channels),
            "group norm of split channels": norm(groups, channels),
            "rms norm": norm(NormCase("rms_norm", (BATCH, 6, 12)), BY_BATCH, {"b": "data", "s": "model"}, channels),
            "layer norm, reference": norm(adaptive, BY_BATCH, channels, implementation="reference"),
            "group norm, reference": norm(groups, BY_BATCH, channels, implementation="reference"),
        }
    )


def measure(case: Case) -> Callable[[Any], Any]:
    """The results, and the gradient of the sum of their sines by each floating array."""

    def function(arrays: Any) -> Any:
        leaves, tree = jax.tree.flatten(arrays)
        moving = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

        def loss(values: list) -> tuple:
            every = dict(enumerate(leaves)) | dict(zip(moving, values))
            results = case.call(tree.unflatten(every.values()))
            return sum(jnp.sum(jnp.sin(jnp.where(jnp.isfinite(y), y, 0))) for y in results), results

        grads, results = jax.grad(loss, has_aux=True)([leaves[i] for i in moving])
        return results, grads

    return function


def over_shards(case: Case, mesh: Any, layout: Layout, check_vma: bool) -> Callable[[Any], Any]:
    """`measure` by `jax.shard_map`: the gradient of an array that devices share is the sum over them."""
    used = tuple(layout.values())
    specs = case.specs(layout)
    leaves = jax.tree.leaves(case.arrays)
    floats = [s for x, s in zip(leaves, jax.tree.leaves(specs)) if jnp.issubdtype(x.dtype, jnp.floating)]
    shared = lambda spec: tuple(name for name in used if name not in spec)

    def local(arrays: Any) -> Any:
        if check_vma:
            arrays = jax.tree.map(lambda x, spec: jax.lax.pcast(x, shared(spec), to="varying"), arrays, specs)
        results, grads = measure(case)(arrays)
        return results, [jax.lax.psum(g, shared(spec)) if shared(spec) else g for g, spec in zip(grads, floats)]

    results = tuple(PartitionSpec(*(layout.get(a) for a in axes)) for axes in case.out)
    return jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=(results, floats), check_vma=check_vma)


def kinds() -> dict[str, tuple[Any, bool, bool]]:
    """Mesh, whether it is set by `jax.set_mesh`, and whether `shard_map` splits the arrays."""
    mesh = lambda *kind: jax.make_mesh(tuple(SIZES.values()), tuple(SIZES), *kind)
    explicit, auto = mesh(), mesh((AxisType.Auto,) * 2)  # explicit axes are the default
    always = {"explicit, set": (explicit, True, False)}
    others = {
        "explicit": (explicit, False, False),
        "auto": (auto, False, False),
        "auto, set": (auto, True, False),
        "manual": (auto, False, True),
        "manual of explicit, set": (explicit, True, True),
    }
    return always | (others if FULL else {})


def failure(
    case: Case, layout: Layout, mesh: Any, is_set: bool, shards: bool, wanted: list, compiled: bool = True
) -> str | None:
    function = over_shards(case, mesh, layout, check_vma=not is_set) if shards else measure(case)
    place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        try:
            run = jax.jit(function) if compiled else function
            found = jax.block_until_ready(run(jax.tree.map(place, case.arrays, case.specs(layout))))
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    for a, b in zip(jax.tree.leaves(found), wanted, strict=True):
        if not np.allclose(a, b, rtol=2e-4, atol=2e-4):
            return f"numbers differ by {np.max(np.abs(np.asarray(a) - b)):.1e}"
    for y, axes in zip(found[0], case.out):
        want = NamedSharding(mesh, case.spec(axes, y.shape, layout | {"x": None}))
        if "explicit" in str(jax.typeof(y)) and not y.sharding.is_equivalent_to(want, y.ndim):
            return f"result {axes} is sharded as {y.sharding.spec}: expected {want.spec}"
    return None


def mapped() -> dict[str, Case]:
    """Calls that `jax.vmap` maps over a sharded axis, outside a compiled program too."""
    scaled = jax.vmap(lambda x: layer_norm(x, jnp.ones(12)))
    return {
        "attention": attention(Attention(q_seq=37, kv_seq=37, **WIDE), BY_BATCH, vmap=True),
        "layer norm": Case(lambda x: (scaled(x),), drawn((BATCH, 5, 12)), ["bsc"], ("bsc",), (BY_BATCH,)),
    }


def main() -> None:
    failed: dict[str, dict[str, str]] = {kind: {} for kind in kinds()}
    failed["explicit, set, not compiled"] = {}
    for name, case in mapped().items():
        wanted, mesh = [np.asarray(x) for x in jax.tree.leaves(measure(case)(case.arrays))], kinds()["explicit, set"][0]
        if why := failure(case, BY_BATCH, mesh, True, False, wanted, compiled=False):
            failed["explicit, set, not compiled"][name] = why
    for name, case in cases().items():
        wanted = [np.asarray(x) for x in jax.tree.leaves(jax.jit(measure(case))(case.arrays))]
        for kind, (mesh, is_set, shards) in kinds().items():
            for layout in case.layouts:
                whole = shards and not (case.splits and {"q", "c", "s"}.isdisjoint(layout))
                if not whole and (why := failure(case, layout, mesh, is_set, shards, wanted)):
                    failed[kind][f"{name} {layout}"] = why
    json.dump(failed, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
