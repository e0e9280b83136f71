"""Experts over eight virtual devices against one, for `tests.nn.layer_meshes`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eqxgen import nn

EXPERTS, DEVICES = PartitionSpec("expert"), 8
CASES: dict[str, dict[str, Any]] = {
    "with a capacity": {"capacity_factor": 0.6, "gated": True, "top_k": 3},
    "without": {},
}


def layers(**options: Any) -> tuple[nn.MoE, nn.MoE]:
    """The layer for one device and for a mesh axis, of the same parameters in float64."""
    make = lambda axis: nn.MoE(8, 12, experts=16, axis=axis, **options, key=jax.random.key(0))
    wide = lambda layer: jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_array(x) else x, layer)
    return wide(make(None)), wide(make("expert"))


def measured(call: Callable[..., Any]) -> Callable[..., Any]:
    """Results, routing and gradients by the parameters and the input."""

    def loss(both: Any) -> tuple[jax.Array, Any]:
        found = call(*both)
        routing = found.routing
        return jnp.sum(jnp.sin(found.x)) + jnp.sum(routing.balance_loss + routing.z_loss), found

    return eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))


def over_shards(mesh: Any) -> Callable[..., Any]:
    """Each device with its examples and its experts."""

    def call(layer: nn.MoE, x: jax.Array) -> Any:
        arrays, rest = eqx.partition(layer, eqx.is_array)
        local = lambda arrays, x: jax.vmap(eqx.combine(arrays, rest))(x)
        specs = jax.tree_util.tree_map_with_path(
            lambda path, _: EXPERTS if "experts" in jax.tree_util.keystr(path) else PartitionSpec(), arrays
        )
        run = jax.shard_map(local, mesh=mesh, in_specs=(specs, EXPERTS), out_specs=EXPERTS)
        return run(arrays, x)

    return call


def failures() -> dict[str, str]:
    """Cases whose numbers differ from those of one device by more than 1e-14 of the largest."""
    failed: dict[str, str] = {}
    jax.config.update("jax_enable_x64", True)  # XLA calls partitioning rules outside the context of `jax.enable_x64`
    mesh = jax.make_mesh((DEVICES,), ("expert",), axis_types=(AxisType.Auto,))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((DEVICES, 10, 8)))
    for name, options in CASES.items():
        alone, split = layers(**options)
        wanted = measured(lambda layer, x: jax.vmap(layer)(x))((alone, x))
        overflow = float(jnp.sum(wanted[0][1].routing.overflow))
        if (overflow > 0) != ("capacity_factor" in options):
            failed[name] = f"the case shows nothing: {overflow} choices overflow"
        put = lambda x: jax.device_put(x, NamedSharding(mesh, EXPERTS)) if eqx.is_array(x) else x
        placed = jax.tree.map(put, alone.experts)
        of_rules = eqx.tree_at(lambda layer: layer.experts, alone, placed)
        runs = {
            "manual": (over_shards(mesh), split),
            "auto": (lambda layer, x: jax.vmap(layer)(x), of_rules),
        }
        for kind, (call, layer) in runs.items():
            found = jax.block_until_ready(measured(call)((layer, x)))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                apart = float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) / (1 + float(np.max(np.abs(b))))
                if not apart <= 1e-14:
                    failed[f"{name}, {kind}"] = f"differs by {apart:.1e}"
    return failed
