"""Run by test_layers_norms.py in a process of its own: batch norm synchronised over two virtual devices against one,
printed as JSON.
"""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import AxisType, PartitionSpec

from eqxgen.nn import BatchNorm

SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()


def main():
    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    x, dy = jr.normal(jr.key(0), (2, 6, 3, 4), jnp.float64)

    def on(norm, spread, check_vma=False):
        def both(norm, x):
            y, state = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, norm.init_state())
            return y, state

        if spread:
            both = jax.shard_map(
                both, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=(SPLIT, WHOLE), check_vma=check_vma
            )

        def loss(arguments):
            y, state = both(*arguments)
            return jnp.sum(y * dy), (y, state)

        grads, found = jax.jit(jax.grad(loss, has_aux=True))((norm, x))
        return jax.tree.leaves((grads, found))

    make = lambda names: eqx.tree_at(
        lambda n: (n.scale, n.inference), BatchNorm(4, axis_name=names), (jnp.arange(1.0, 5.0), None)
    )
    apart = lambda first, second: max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(first, second))
    alone = on(make("batch"), spread=False)
    report = {"synchronised": apart(on(make(("batch", "data")), spread=True), alone)}
    report["halves"] = float(jnp.max(jnp.abs(on_halves(make("batch"), x) - alone[-4])))
    try:
        on(make(("batch", "data")), spread=True, check_vma=True)
    except ValueError as error:
        report["checked"] = str(error)
    json.dump(report, sys.stdout)


def on_halves(norm, x):
    """What each device would give by the statistics of its own half."""
    run = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
    return jnp.concatenate([run(half, norm.init_state())[0] for half in jnp.split(x, 2)])


if __name__ == "__main__":
    main()
