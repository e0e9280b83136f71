"""Blocks, tables, norms of one example and dropout against equinox.nn and torch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from bench.layer_race import Race, batched, normal, tensor
from eqxgen import nn

KEY = jr.key(0)
TOKENS = (4, 256, 384)
HEADS = 6


def torch_layers():
    import torch

    return torch.nn


def torch_block():
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    return torch_layers().TransformerEncoderLayer(TOKENS[-1], HEADS, 4 * TOKENS[-1], **options), tensor(normal(*TOKENS))


def torch_decoder_block():
    import torch

    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    layer = torch.nn.TransformerDecoderLayer(TOKENS[-1], HEADS, 4 * TOKENS[-1], **options)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS[1])
    run = lambda x, context: layer(x, context, tgt_mask=mask, tgt_is_causal=True)
    run.parameters = layer.parameters
    return run, tensor(normal(*TOKENS)), tensor(normal(4, 77, TOKENS[-1]))


def looked_up(table, ids):
    return jax.vmap(table)(ids)


def ids() -> jax.Array:
    return jr.randint(KEY, TOKENS[:2], 0, 8192)


def each_token(layer, x):
    return jax.vmap(jax.vmap(layer))(x)


def dropped(layer, x):
    return jax.vmap(lambda x, key: layer(x, key=key))(x, jr.split(jr.key(2), len(x)))


def each_image(layer, x):
    return jax.vmap(layer)(x)


IMAGES = (8, 32, 32, 64)

RACES: dict[str, Race] = {
    "Selformer": Race(
        lambda: (batched, nn.Selformer(TOKENS[-1], HEADS, key=KEY), normal(*TOKENS)),
        None,
        torch_block,
    ),
    "Crossformer": Race(
        lambda: (
            lambda block, x, context: jax.vmap(block)(x, context),
            nn.Crossformer(TOKENS[-1], heads=HEADS, key=KEY),
            normal(*TOKENS),
            normal(4, 77, TOKENS[-1]),
        ),
        None,
        torch_decoder_block,
    ),
    "Embedding": Race(
        lambda: (looked_up, nn.Embedding(8192, TOKENS[-1], key=KEY), ids()),
        lambda: (lambda table, ids: jax.vmap(jax.vmap(table))(ids), eqx.nn.Embedding(8192, TOKENS[-1], key=KEY), ids()),
    ),
    "LayerNorm": Race(
        lambda: (batched, nn.LayerNorm(TOKENS[-1]), normal(*TOKENS)),
        lambda: (each_token, eqx.nn.LayerNorm(TOKENS[-1]), normal(*TOKENS)),
        lambda: (torch_layers().LayerNorm(TOKENS[-1]), tensor(normal(*TOKENS))),
    ),
    "GroupNorm": Race(
        lambda: (batched, nn.GroupNorm(64, groups=32), normal(*IMAGES)),
        lambda: (each_image, eqx.nn.GroupNorm(32, 64), jnp.moveaxis(normal(*IMAGES), -1, 1)),
        lambda: (torch_layers().GroupNorm(32, 64), tensor(normal(*IMAGES))),
    ),
    "Dropout": Race(
        lambda: (dropped, nn.Dropout(0.1), normal(*TOKENS)),
        lambda: (dropped, eqx.nn.Dropout(0.1), normal(*TOKENS)),
        lambda: (torch_layers().Dropout(0.1), tensor(normal(*TOKENS))),
    ),
}
