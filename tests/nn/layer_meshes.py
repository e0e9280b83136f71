"""Run by test_layer_meshes.py in a process of its own: the table of layers, forward and gradient, over batches on eight
virtual devices. Prints, as JSON, the rows that fail and why, for each kind of mesh axes.

By default one row of each class is traced, where explicit axes raise their errors. EQXGEN_FULL=1 takes every row and
kind, and compares the numbers with those of one device.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.full import FULL
from tests.nn import moe_devices
from tests.nn.layer_rows import Row, call, of_each_class, table

BATCH, DEVICES = 8, 8
TOGETHER = 6  # rows in one program: XLA's time grows faster than a program
SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()


def loss_of(row: Row) -> Callable[..., Any]:
    """Sum of squares of the layer's results over a batch, its gradient by the layer and the inputs."""

    def results(layer: Any, inputs: tuple) -> jax.Array:
        key, inference = (jr.key(3), None) if row.draws else (None, True)
        one = lambda *inputs: call(layer, row, inputs, key=key, inference=inference)
        return jax.vmap(one, axis_name="batch")(*inputs)

    def loss(both: Any) -> tuple[jax.Array, jax.Array]:
        y = results(*both)
        return jnp.sum(y.astype(jnp.float32) ** 2), y

    return eqx.filter_value_and_grad(loss, has_aux=True)


def batch_of(row: Row) -> tuple[jax.Array, ...]:
    examples = [row.inputs(seed) for seed in range(BATCH)]
    return tuple(jnp.stack(parts) for parts in zip(*examples))


def over_shards(row: Row, mesh: Any, check_vma: bool) -> Callable[..., Any]:
    """The same by `shard_map`: each device sums over its part of the batch."""
    whole = loss_of(row)

    def parts(both: Any) -> Any:
        arrays, rest = eqx.partition(both, eqx.is_array)

        def local(arrays: Any) -> Any:
            layer, inputs = arrays
            layer = jax.tree.map(lambda x: jax.lax.pcast(x, "data", to="varying"), layer) if check_vma else layer
            (loss, y), (by_layer, by_inputs) = whole(eqx.combine((layer, inputs), rest))
            loss, by_layer = jax.lax.psum((loss, by_layer), "data")
            return (loss, y), (by_layer, by_inputs)

        specs = (WHOLE, SPLIT)
        out = ((WHOLE, SPLIT), specs)
        return jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=out, check_vma=check_vma)(arrays)

    return parts


def kinds() -> dict[str, tuple[Any, bool, bool]]:
    """Mesh, whether it is set by `jax.set_mesh`, and whether `shard_map` splits the batch."""
    mesh = lambda kind: jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,))
    explicit = jax.make_mesh((DEVICES,), ("data",))  # the default, explicit axes
    always = {"explicit": (explicit, False, False), "manual": (mesh(AxisType.Auto), False, True)}
    others = {
        "explicit, set": (explicit, True, False),
        "auto": (mesh(AxisType.Auto), False, False),
        "manual of explicit, set": (explicit, True, True),
    }
    return always | (others if FULL else {})


def failures(rows: dict[str, Row], mesh: Any, is_set: bool, shards: bool, wanted: dict[str, list]) -> dict[str, str]:
    """Each row that does not trace, or gives other numbers than on one device; all are compiled as one program."""
    failed: dict[str, str] = {}
    programs: dict[str, Callable[..., Any]] = {}
    arguments: dict[str, Any] = {}
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        for name, row in rows.items():
            put = lambda tree, spec: placed(tree, NamedSharding(mesh, spec))
            layer, batch = built(row)
            arguments[name] = (layer if is_set else put(layer, WHOLE), put(batch, SPLIT))
            programs[name] = over_shards(row, mesh, check_vma=not is_set) if shards else loss_of(row)
            try:
                eqx.filter_eval_shape(programs[name], arguments[name])
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        fine = {name: arguments[name] for name in rows if name not in failed}
        found = computed(programs, fine) if FULL else {}
    for name in found:
        apart = [
            float(np.max(np.abs(np.asarray(a) - b), initial=0.0)) / (1 + float(np.max(np.abs(b), initial=0.0)))
            for a, b in zip(leaves(found[name]), wanted[name], strict=True)
        ]
        if not max(apart) < 1e-4:
            failed[name] = f"numbers differ by {max(apart):.1e}"
    return failed


def built(row: Row) -> tuple[Any, tuple[Any, ...]]:
    """The layer and a batch; shapes alone where nothing is computed, which compiles nothing."""
    make = lambda: (row.make(jr.key(0)), batch_of(row))
    return make() if FULL else eqx.filter_eval_shape(make)


def placed(tree: Any, sharding: NamedSharding) -> Any:
    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding) if eqx.is_array(leaf) else leaf

    return jax.tree.map(put, tree)


def computed(programs: dict[str, Callable[..., Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = list(arguments)
    for start in range(0, len(names), TOGETHER):
        some = {name: arguments[name] for name in names[start : start + TOGETHER]}
        found |= eqx.filter_jit(lambda some: {name: programs[name](both) for name, both in some.items()})(some)
        jax.clear_caches()  # the code of all programs together would take more mappings than a process may have
    return found


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def main(rows: dict[str, Any], **others: Callable[[], dict[str, str]]) -> None:
    """Rows are those of the table of layers, or have the same fields; `whole` ones are not split by `shard_map`. Others
    give failures of their own.
    """
    jax.config.update("jax_numpy_rank_promotion", "raise")
    alone = {name: built(row) for name, row in rows.items()} if FULL else {}
    found = computed({name: loss_of(row) for name, row in rows.items()}, alone)
    wanted = {name: leaves(tree) for name, tree in found.items()}
    split = {name: row for name, row in rows.items() if not getattr(row, "whole", False)}
    results = {
        kind: failures(split if shards else rows, mesh, is_set, shards, wanted)
        for kind, (mesh, is_set, shards) in kinds().items()
    }
    json.dump(results | {name: run() for name, run in others.items()}, sys.stdout, indent=1)


if __name__ == "__main__":
    main(table() if FULL else of_each_class(), experts=moe_devices.failures)
