"""Run by test_model_meshes.py in a process of its own: a training step as a user writes it, with optax under `jax.jit`,
on a 2x4 mesh of explicit axes. Prints, as JSON, how far the parameters of each layout are from those of one device.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jax.sharding import reshard

from eqxgen.configs import GPTConfig
from eqxgen.losses.tokens import cross_entropy
from eqxgen.models.gpt import GPT

SIZES = GPTConfig(dim=16, depth=2, heads=4, hidden_dim=24, context=16)
COLUMNS, ROWS = ("qkv.weight", "qkv.bias", "up.weight", "up.bias"), ("out.weight", "down.weight")
TX = optax.sgd(0.1, momentum=0.9)


def whole(path: tuple, x: Any) -> P:
    return P()


def sharded(path: tuple, x: Any) -> P:
    """FSDP: the first axis that the devices divide."""
    axis = next((n for n, size in enumerate(x.shape) if size % 4 == 0), None)
    return P() if axis is None else P(*(None,) * axis, "model")


def tensor(path: tuple, x: Any) -> P:
    """Tensor parallelism: the outputs of the first products of a block, the inputs of the last ones."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if name.endswith(COLUMNS):
        return P(None, "model")
    return P(None, None, "model") if name.endswith(ROWS) else P()


# For each layout the specs of the parameters and of the batch, and if a step gathers the parameters.
LAYOUTS = {
    "data": (whole, P(("data", "model")), False),
    "fsdp": (sharded, P(("data", "model")), True),
    "tensor": (tensor, P("data"), False),
}


def train(model: Any, ids: Any, gather: bool) -> Any:
    arrays, rest = eqx.partition(model, eqx.is_array)

    def loss(arrays: Any, ids: Any) -> jax.Array:
        full = jax.tree.map(lambda x: reshard(x, P()), arrays) if gather else arrays
        logits = jax.vmap(eqx.combine(full, rest))(ids[:, :-1])
        return cross_entropy(logits, ids[:, 1:]).mean()

    @jax.jit
    def step(arrays: Any, state: Any, ids: Any) -> Any:
        updates, state = TX.update(jax.grad(loss)(arrays, ids), state)
        return optax.apply_updates(arrays, updates), state

    state = TX.init(arrays)
    for _ in range(2):
        arrays, state = jax.block_until_ready(step(arrays, state, ids))
    return arrays


def apart(layout: tuple[Callable, P, bool], model: Any, ids: Any, wanted: Any) -> float:
    specs, batch, gather = layout
    place = lambda path, x: jax.device_put(x, specs(path, x)) if eqx.is_array(x) else x
    with jax.set_mesh(jax.make_mesh((2, 4), ("data", "model"))):
        placed = jax.tree_util.tree_map_with_path(place, model)
        found = train(placed, jax.device_put(ids, batch), gather)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(eqx.filter(placed, eqx.is_array)), strict=True):
        assert new.sharding.is_equivalent_to(old.sharding, new.ndim)
    return max(float(np.max(np.abs(np.asarray(a) - b))) for a, b in pairs)


def main() -> None:
    model, ids = GPT(7, SIZES, key=jr.key(0)), jr.randint(jr.key(1), (8, 13), 0, 7)
    wanted = train(model, ids, False)
    start = eqx.filter(model, eqx.is_array)
    moved = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(wanted)))
    assert moved > 1e-3, moved
    json.dump({name: apart(layout, model, ids, wanted) for name, layout in LAYOUTS.items()}, sys.stdout)


if __name__ == "__main__":
    main()
