"""The table's first rows: affine maps, norms, attention, blocks."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)

LAYERS = {
    "Projection": Row(lambda key: nn.Projection(5, 3, key=key), (2, 4, 3), ((2, 4, 5),)),
    "Projection without bias": Row(lambda key: nn.Projection(5, 3, bias=False, key=key), (3,), ((5,),)),
    "Embedding": Row(lambda key: nn.Embedding(7, 3, key=key), (4, 3), ((4,),), ids=7),
    "MLP": Row(lambda key: nn.MLP(5, dropout=0.1, key=key), (7, 5), ((7, 5),), draws=True),
    "LayerNorm": Row(lambda key: nn.LayerNorm(5), (7, 5), ((7, 5),)),
    "LayerNorm without affine": Row(lambda key: nn.LayerNorm(5, affine=False), (5,), ((5,),)),
    "GroupNorm": Row(lambda key: nn.GroupNorm(6, 3), (4, 5, 6), ((4, 5, 6),)),
    "Dropout": Row(lambda key: nn.Dropout(0.3), (7, 5), ((7, 5),), draws=True),
    "Convolution": Row(lambda key: nn.Convolution(4, 6, key=key), (5, 7, 6), ((5, 7, 4),)),
    "Convolution, strided and grouped": Row(
        lambda key: nn.Convolution(4, 6, kernel=2, stride=2, padding=0, groups=2, key=key), (3, 4, 6), ((6, 8, 4),)
    ),
    "ResidualBlock": Row(lambda key: nn.ResidualBlock(4, 6, groups=2, key=key), (5, 7, 6), ((5, 7, 4),)),
    "SelfAttention": Row(lambda key: nn.SelfAttention(8, 2, dropout=0.1, key=key), (5, 8), ((5, 8),), draws=True),
    "SelfAttention, causal, grouped": Row(
        lambda key: nn.SelfAttention(8, 4, kv_heads=2, causal=True, key=key), (5, 8), ((5, 8),)
    ),
    **{
        f"Activation {name}": Row(lambda key, name=name: nn.Activation(name), (3, 4), ((3, 4),))
        for name in nn.ACTIVATIONS
    },
}

WRONG = [
    Wrong(lambda: nn.Projection(0, 3, key=KEY), "in_dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.Projection(5, 3, key=KEY)(jnp.ones((5, 4))), r"in_dim=5 entries: got shape \(5, 4\)"),
    Wrong(lambda: nn.Embedding(0, 3, key=KEY), "vocab must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.Embedding(4, 3, key=KEY)(jnp.asarray([4])), r"ids must be in \[0, vocab=4\): got values from 4 to 4"
    ),
    Wrong(lambda: nn.Embedding(4, 3, key=KEY)(jnp.asarray([-1, 2])), "ids must be in .*: got values from -1 to 2"),
    Wrong(lambda: nn.Dropout(1.0), r"rate must be in \[0, 1\): got 1.0"),
    Wrong(lambda: nn.Dropout(-0.5), r"rate must be in \[0, 1\): got -0.5"),
    Wrong(lambda: nn.Dropout(float("nan")), "rate"),
    Wrong(lambda: nn.Dropout(0.5)(jnp.ones(3)), "dropout needs key"),
    Wrong(lambda: nn.LayerNorm(4, epsilon=0.0), "epsilon must be positive and finite: got 0.0"),
    Wrong(lambda: nn.GroupNorm(10, 4), "groups must divide channels: got channels=10, groups=4"),
    Wrong(lambda: nn.Activation("gelo"), "name must be one of .*: got 'gelo'"),
    Wrong(lambda: nn.SelfAttention(10, 4, key=KEY), "heads must divide dim: got dim=10, heads=4"),
    Wrong(lambda: nn.SelfAttention(8, 4, kv_heads=3, key=KEY), "kv_heads must divide heads: got heads=4, kv_heads=3"),
    Wrong(
        lambda: nn.Stack(lambda key: nn.MLP(4, key=key), 0, key=KEY), "depth must be an integer of at least 1: got 0"
    ),
    Wrong(
        lambda: nn.Convolution(3, 4, groups=2, key=KEY), "groups must divide in_channels: got in_channels=3, groups=2"
    ),
    Wrong(lambda: nn.Convolution(3, 4, padding=-1, key=KEY), "padding must be an integer of at least 0: got -1"),
    Wrong(
        lambda: nn.Convolution(3, 4, key=KEY)(jnp.ones((5, 5, 4))),
        r"x must be \(height, width, in_channels=3\): got shape \(5, 5, 4\)",
    ),
    Wrong(
        lambda: nn.Convolution(3, 4, kernel=5, padding=0, key=KEY)(jnp.ones((4, 9, 3))),
        "at least as long as the dilated kernel=5",
    ),
    Wrong(lambda: nn.downsample(jnp.ones((5, 4, 1))), "factor must divide height: got height=5, factor=2"),
]
