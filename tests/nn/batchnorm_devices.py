"""Run by test_layers_norms.py in a process of its own: batch norm and the moving-average codebook synchronised over two
virtual devices against one, printed as JSON.
"""

import json
import re
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import AxisType, PartitionSpec

from eqxgen.nn import BatchNorm, EMAQuantizer, synchronised

SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()
MESH = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))


def on(layer, x, dy, weight, check_vma=None):
    """Gradients, results and state of a layer on a batch; over two devices where check_vma is given."""

    def both(layer, x, weight):
        if check_vma is not None:
            layer = synchronised(layer, ("data",))
        call = lambda x, state, weight: layer(x, state, weight=weight)
        run = jax.vmap(call, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")
        y, state = run(x, layer.init_state(), weight)
        return getattr(y, "vectors", y), state

    if check_vma is not None:
        both = jax.shard_map(
            both, mesh=MESH, in_specs=(WHOLE, SPLIT, SPLIT), out_specs=(SPLIT, WHOLE), check_vma=check_vma
        )

    def loss(arguments):
        y, state = both(*arguments, weight)
        return jnp.sum(y * dy * weight[:, None, None]), (y, state)

    compiled = jax.jit(jax.grad(loss, has_aux=True, allow_int=True))
    grads, (y, state) = compiled((layer, x))
    exchanges = len(re.findall(r" all-reduce(-start)?\(", jax.jit(loss).lower((layer, x)).compile().as_text()))
    return {"gradient": grads[1], "y": y, "state": jax.tree.leaves(state), "exchanges": exchanges}


def apart(first, second):
    """The largest difference in each part."""
    return {
        name: max(
            float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(first[name]), jax.tree.leaves(second[name]))
        )
        for name in ("gradient", "y", "state")
    }


def main():
    jax.config.update("jax_enable_x64", True)
    x, dy = jr.normal(jr.key(0), (2, 6, 3, 4), jnp.float64)
    ones, padded = jnp.ones(6), jnp.array([1.0, 1, 1, 1, 0, 0])
    norm = eqx.tree_at(lambda n: (n.scale, n.inference), BatchNorm(4, axis_name="batch"), (jnp.arange(1.0, 5.0), None))
    layers = {"norm": norm, "codebook": EMAQuantizer(5, 4, axis_name="batch", key=jr.key(1))}
    layers["codebook"] = eqx.tree_at(
        lambda q: (q.inference, q.start), layers["codebook"], (None, jr.normal(jr.key(1), (5, 4), jnp.float64))
    )
    report = {}
    for name, layer in layers.items():
        whole = on(layer, x, dy, ones)
        for check_vma in (True, False):
            found = on(layer, x, dy, ones, check_vma)
            report[f"{name} {check_vma}"] = apart(found, whole) | {"exchanges": found["exchanges"]}
        # Padding of other values counts for nothing.
        part = on(layer, x[:4], dy[:4], ones[:4])
        filled = on(layer, x, dy, padded, True)
        filled = filled | {"gradient": filled["gradient"][:4], "y": filled["y"][:4]}
        report[f"{name} padded"] = apart(filled, part)
        nothing = on(layer, x, dy, 0 * padded, True)["state"]
        report[f"{name} of padding alone"] = max(
            float(jnp.max(jnp.abs(a - b))) for a, b in zip(nothing, jax.tree.leaves(layer.init_state()))
        )
    report["halves"] = float(jnp.max(jnp.abs(on_halves(norm, x) - on(norm, x, dy, ones)["y"])))
    json.dump(report, sys.stdout)


def on_halves(norm, x):
    """The result of each device by the statistics of its own half."""
    run = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
    return jnp.concatenate([run(half, norm.init_state())[0] for half in jnp.split(x, 2)])


if __name__ == "__main__":
    main()
