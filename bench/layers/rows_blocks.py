"""Blocks, tables, norms of one example and dropout against equinox.nn and torch."""

import equinox as eqx
import jax
import jax.random as jr

from bench.layers.contenders import Race, batched, each_token, first, normal, tensor, torch_layers
from eqxgen import nn

KEY = jr.key(0)
TOKENS = (4, 256, 384)
HEADS = 6
IMAGES = (8, 32, 32, 64)
TORCH_OPTIONS = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}


def torch_block():
    return torch_layers().TransformerEncoderLayer(TOKENS[-1], HEADS, 4 * TOKENS[-1], **TORCH_OPTIONS), tensor(
        normal(*TOKENS)
    )


def torch_decoder_block():
    layer = torch_layers().TransformerDecoderLayer(TOKENS[-1], HEADS, 4 * TOKENS[-1], **TORCH_OPTIONS)
    mask = torch_layers().Transformer.generate_square_subsequent_mask(TOKENS[1])
    run = lambda x, context: layer(x, context, tgt_mask=mask, tgt_is_causal=True)
    run.parameters = layer.parameters
    return run, tensor(normal(*TOKENS)), tensor(normal(4, 77, TOKENS[-1]))


def ids() -> jax.Array:
    return jr.randint(KEY, TOKENS[:2], 0, 8192)


def dropped(layer, x):
    return jax.vmap(lambda x, key: layer(x, key=key))(x, jr.split(jr.key(2), len(x)))


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
    "Jointformer": Race(
        lambda: (
            lambda layer, x: jax.vmap(lambda x: layer(x, x[:77], x[0])[0])(x),
            nn.Jointformer(TOKENS[-1], HEADS, key=KEY),
            normal(*TOKENS),
        ),
    ),
    "MoE": Race(
        lambda: (
            lambda layer, x: jax.vmap(lambda x: layer(x).x)(x),
            nn.MoE(TOKENS[-1], 2 * TOKENS[-1], experts=8, capacity_factor=1.25, key=KEY),
            normal(*TOKENS),
        ),
    ),
    "Mamba2": Race(
        lambda: (
            lambda layer, x: jax.vmap(lambda x: layer(x)[0])(x),
            nn.Mamba2(TOKENS[-1], key=KEY),
            normal(*TOKENS),
        ),
    ),
    "Embedding": Race(
        lambda: (batched, nn.Embedding(8192, TOKENS[-1], key=KEY), ids()),
        lambda: (each_token, eqx.nn.Embedding(8192, TOKENS[-1], key=KEY), ids()),
    ),
    "LayerNorm": Race(
        lambda: (batched, nn.LayerNorm(TOKENS[-1]), normal(*TOKENS)),
        lambda: (each_token, eqx.nn.LayerNorm(TOKENS[-1]), normal(*TOKENS)),
        lambda: (torch_layers().LayerNorm(TOKENS[-1]), tensor(normal(*TOKENS))),
    ),
    "GroupNorm": Race(
        lambda: (batched, nn.GroupNorm(64, groups=32), normal(*IMAGES)),
        lambda: (batched, eqx.nn.GroupNorm(32, 64), first(normal(*IMAGES))),
        lambda: (torch_layers().GroupNorm(32, 64), tensor(normal(*IMAGES))),
    ),
    "Dropout": Race(
        lambda: (dropped, nn.Dropout(0.1), normal(*TOKENS)),
        lambda: (dropped, eqx.nn.Dropout(0.1), normal(*TOKENS)),
        lambda: (torch_layers().Dropout(0.1), tensor(normal(*TOKENS))),
    ),
}
