"""Rows of attention and positions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from bench.layers.contenders import Race, batched, normal, tensor
from eqxgen import nn

KEY = jr.key(0)
TOKENS = (4, 256, 384)
HEADS = 6


def multihead(layer, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda x: layer(x, x, x))(x)


def torch_multihead():
    import torch

    layer = torch.nn.MultiheadAttention(TOKENS[-1], HEADS, bias=False, batch_first=True)
    return lambda x: layer(x, x, x, need_weights=False), tensor(normal(*TOKENS))


def torch_cross():
    import torch

    layer = torch.nn.MultiheadAttention(TOKENS[-1], HEADS, kdim=256, vdim=256, batch_first=True)
    return lambda x, y: layer(x, y, y, need_weights=False), tensor(normal(*TOKENS)), tensor(normal(4, 77, 256))


def torch_pool():
    """SigLIP's head, of torch's layers."""
    import torch

    dim = TOKENS[-1]

    class Pool(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.probe = torch.nn.Parameter(torch.randn(1, 1, dim))
            self.attention = torch.nn.MultiheadAttention(dim, HEADS, batch_first=True)
            layers = torch.nn.Linear(dim, 4 * dim), torch.nn.GELU(), torch.nn.Linear(4 * dim, dim)
            self.mlp = torch.nn.Sequential(torch.nn.LayerNorm(dim), *layers)

        def forward(self, x):
            y = self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=False)[0]
            return (y + self.mlp(y))[:, 0]

    return Pool(), tensor(normal(*TOKENS))


def cross(layer, x: jax.Array, context: jax.Array) -> jax.Array:
    return jax.vmap(layer)(x, context)


def equinox_cross(layer, x: jax.Array, context: jax.Array) -> jax.Array:
    return jax.vmap(lambda x, context: layer(x, context, context))(x, context)


def plain(**options):
    return lambda: (
        multihead,
        eqx.nn.MultiheadAttention(HEADS, TOKENS[-1], key=KEY, **options),
        normal(*TOKENS),
    )


BIASES = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}

RACES: dict[str, Race] = {
    "MultiheadAttention": Race(
        lambda: (multihead, nn.MultiheadAttention(HEADS, TOKENS[-1], key=KEY), normal(*TOKENS)),
        plain(),
        torch_multihead,
    ),
    "SelfAttention": Race(
        lambda: (batched, nn.SelfAttention(TOKENS[-1], HEADS, bias=False, key=KEY), normal(*TOKENS)),
        plain(),
        torch_multihead,
    ),
    "CrossAttention": Race(
        lambda: (cross, nn.CrossAttention(TOKENS[-1], 256, heads=HEADS, key=KEY), normal(*TOKENS), normal(4, 77, 256)),
        lambda: (
            equinox_cross,
            eqx.nn.MultiheadAttention(HEADS, TOKENS[-1], 256, 256, **BIASES, key=KEY),
            normal(*TOKENS),
            normal(4, 77, 256),
        ),
        torch_cross,
    ),
    "AttentionPool": Race(
        lambda: (batched, nn.AttentionPool(TOKENS[-1], HEADS, key=KEY), normal(*TOKENS)), None, torch_pool
    ),
    "NeighborhoodAttention": Race(
        lambda: (
            batched,
            nn.NeighborhoodAttention(TOKENS[-1], HEADS, kernel=(7, 7), key=KEY),
            normal(TOKENS[0], 16, 16, TOKENS[-1]),
        ),
    ),
    "RoPE": Race(
        lambda: (batched, nn.RoPE(64), normal(4, 256, 6, 64)),
        lambda: (
            lambda layer, x: jax.vmap(jax.vmap(layer, in_axes=1, out_axes=1))(x),
            eqx.nn.RotaryPositionalEmbedding(64),
            normal(4, 256, 6, 64),
        ),
    ),
    "SinusoidalEmbedding": Race(lambda: (batched, nn.SinusoidalEmbedding(384), jnp.arange(4.0 * 256).reshape(4, 256))),
}
