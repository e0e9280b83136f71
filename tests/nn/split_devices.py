"""Run by test_layers_split.py on eight virtual devices: layers under `split_over` against one device; prints JSON."""

import functools
import json
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from eqxgen import nn
from eqxgen.ops import masks, to_zigzag

DEVICES, SEQ, DIM = 4, 16, 16
TOKENS = PartitionSpec("context")
# Documents that end within a device's tokens, and longer than them.
DOCUMENTS = np.repeat(np.arange(4), (3, 7, 1, 5))

Attention = functools.partial(nn.SelfAttention, DIM, 4, causal=True)
CASES: dict[str, Any] = {
    "packed documents": functools.partial(Attention, rope=nn.RoPE(4)),
    "packed documents, few key heads": functools.partial(Attention, kv_heads=1, rope=nn.RoPE(4)),
    "a window": functools.partial(Attention, window=5, qk_norm=True),
    "a window on both sides": functools.partial(nn.SelfAttention, DIM, 4, window=3),
    "dropout": functools.partial(nn.MLP, DIM, dropout=0.3),
    "latents": functools.partial(
        nn.LatentAttention, DIM, 4, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4
    ),
    "in parallel": functools.partial(nn.ParallelAttention, DIM, 4, causal=True, rope=nn.RoPE(4)),
    "experts": functools.partial(nn.MoE, DIM, 8, experts=6, capacity_factor=0.7, jitter=0.2),
    "a ring of axial positions": functools.partial(nn.SelfAttention, DIM, 2, rope=nn.AxialRoPE(8, (4, 4))),
}


def result(name: str, layer: Any, x: jax.Array, documents: jax.Array, key: jax.Array) -> jax.Array:
    """The layer's result for tokens."""
    if name.startswith("packed"):
        return layer(x, mask=masks.Segments(documents))
    found = layer(x, key=key)
    return found.x if name == "experts" else found


def routing(name: str, layer: Any, x: jax.Array, key: jax.Array) -> list[jax.Array]:
    """Counts and losses of experts, which are those of the whole sequence on every device."""
    return list(layer(x, key=key).routing) if name == "experts" else []


def apart(name: str) -> dict[str, float]:
    """Largest difference of results and gradients from one device in each order, relative to the largest."""
    layer = CASES[name](key=jr.key(0))
    layer = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, layer)
    arrays, rest = eqx.partition(layer, eqx.is_inexact_array)
    x, key = jr.normal(jr.key(1), (SEQ, DIM), jnp.float64), jr.key(2)
    mesh = jax.make_mesh((DEVICES,), ("context",), devices=jax.devices()[:DEVICES], axis_types=(AxisType.Auto,))

    def alone(arrays: Any, x: jax.Array, documents: jax.Array) -> Any:
        layer = eqx.combine(arrays, rest)
        found = result(name, layer, x, documents, key)
        return jnp.sum(jnp.sin(found)), (found, routing(name, layer, x, key))

    def split(order: str, arrays: Any, x: jax.Array, documents: jax.Array) -> Any:
        def local(arrays: Any, x: jax.Array, documents: jax.Array) -> Any:
            with nn.split_over(sequence="context", order=order):
                total, (found, counts) = alone(arrays, x, documents)
            return jax.lax.psum(total, "context"), (found, counts)

        specs = (PartitionSpec(), (TOKENS, PartitionSpec()))
        run = jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(), TOKENS, TOKENS), out_specs=specs)
        return run(arrays, x, documents)

    run = lambda function: jax.jit(jax.value_and_grad(function, (0, 1), has_aux=True))
    documents, largest = jnp.asarray(DOCUMENTS), {}
    (_, (one, counts)), (own, dx) = run(alone)(arrays, x, documents)
    for order, stored in (("zigzag", lambda x: to_zigzag(x, DEVICES)), ("contiguous", lambda x: x)):
        wanted = (stored(one), counts, own, stored(dx))
        given = arrays, stored(x), stored(documents)
        (_, (found, numbers)), (grads, dy) = run(functools.partial(split, order))(*given)
        pairs = zip(jax.tree.leaves((found, numbers, grads, dy)), jax.tree.leaves(wanted), strict=True)
        largest[order] = max(float(np.max(np.abs(a - b)) / (1 + np.max(np.abs(b)))) for a, b in pairs)
    return largest


def main(names: list[str]) -> None:
    """Prints the difference of each case in both orders."""
    jax.config.update("jax_enable_x64", True)
    found: dict[str, float] = {}
    for name in names:
        found |= {f"{name}, {order}": largest for order, largest in apart(name).items()}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
