"""The table's rows of blocks, stacks, conditioning, patches and glue."""

import jax.random as jr

from eqxgen import nn
from eqxgen.nn.blocks import PLACEMENTS
from tests.layer_rows import Row, Wrong

KEY = jr.key(0)


def parts(**others):
    """The keyword arguments of a block that norms before each half."""
    return {"attention_norm": nn.LayerNorm(8), "mlp_norm": nn.LayerNorm(8), **others}


def block(**options):
    return nn.TransformerBlock(nn.SelfAttention(8, 2, key=KEY), nn.MLP(8, key=KEY), **options)


LAYERS = {
    **{
        f"Selformer, {name}": Row(lambda key, name=name: nn.Selformer(8, 2, placement=name, key=key), (5, 8), ((5, 8),))
        for name in PLACEMENTS
    },
    "Selformer that drops": Row(lambda key: nn.Selformer(8, 2, dropout=0.2, key=key), (5, 8), ((5, 8),), draws=True),
    "TransformerBlock, parallel with two norms, dropping paths": Row(
        lambda key: nn.TransformerBlock(
            nn.SelfAttention(8, 4, kv_heads=2, causal=True, key=key),
            nn.MLP(8, 12, activation="swish", dropout=0.2, key=key),
            **parts(),
            placement="parallel",
            drop_path=0.3,
        ),
        (5, 8),
        ((5, 8),),
        draws=True,
    ),
    "Stack": Row(lambda key: nn.Stack(lambda key: nn.Selformer(8, 2, key=key), 3, key=key), (5, 8), ((5, 8),)),
    "Stack that keeps products alone": Row(
        lambda key: nn.Stack(lambda key: nn.Selformer(8, 2, dropout=0.2, key=key), 3, remat="dots", key=key), (5, 8), ((5, 8),), draws=True
    ),
    "DropPath": Row(lambda key: nn.DropPath(0.5), (7, 5), ((7, 5),), draws=True),
}

WRONG = [
    Wrong(lambda: nn.Selformer(8, 2, placement="middle", key=KEY), "placement must be one of parallel, post, pre, sandwich: got 'middle'"),
    Wrong(lambda: nn.Selformer(8, 3, key=KEY), "heads must divide dim: got dim=8, heads=3"),
    Wrong(lambda: block(attention_norm=nn.LayerNorm(8)), "placement='pre' needs mlp_norm: only a parallel block can do with one norm"),
    Wrong(
        lambda: block(**parts(attention_out_norm=nn.LayerNorm(8))),
        "attention_out_norm goes with placement='sandwich' and no other: got .*, placement='pre'",
    ),
    Wrong(
        lambda: block(**parts(attention_out_norm=nn.LayerNorm(8), placement="sandwich")),
        "mlp_out_norm goes with placement='sandwich' and no other: got mlp_out_norm=None",
    ),
    Wrong(lambda: block(**parts(drop_path=1.0)), r"rate must be in \[0, 1\): got 1.0"),
    Wrong(lambda: nn.DropPath(0.5)(jr.normal(KEY, (3, 4))), "drop path needs key=... in training: pass one, or inference=True"),
    Wrong(lambda: nn.DropPath(-1.0), r"rate must be in \[0, 1\): got -1.0"),
    Wrong(
        lambda: nn.TransformerBlock(nn.MLP(8, key=KEY), nn.MLP(8, key=KEY), **parts()).cache(4),
        "attention must have the methods cache and extend for decoding step by step: got MLP",
    ),
    Wrong(lambda: nn.Stack(lambda key: nn.MLP(4, key=key), 0, key=KEY), "depth must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.Stack(lambda key: nn.MLP(4, key=key), 2, remat="all", key=KEY), "remat must be one of dots, full, none: got 'all'"),
]
