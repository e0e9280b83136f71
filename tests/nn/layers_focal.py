"""The table's focal modulation and squeeze-and-excitation."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)

LAYERS = {
    "FocalModulation": Row(
        lambda key: nn.FocalModulation(4, level=1, dropout=0.1, key=key), (5, 6, 4), ((5, 6, 4),), draws=True
    ),
    "FocalModulation without bias": Row(
        lambda key: nn.FocalModulation(4, level=1, bias=False, key=key), (5, 6, 4), ((5, 6, 4),)
    ),
    "SqueezeExcitation": Row(lambda key: nn.SqueezeExcitation(8, 4, key=key), (3, 5, 8), ((3, 5, 8),)),
}

WRONG = [
    Wrong(lambda: nn.FocalModulation(4, level=0, key=KEY), "level must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.FocalModulation(4, window=4, key=KEY),
        "window must be odd and factor even, for centred kernels: got window=4, factor=2",
    ),
    Wrong(
        lambda: nn.FocalModulation(4, factor=1, key=KEY), "window must be odd and factor even.*: got window=3, factor=1"
    ),
    Wrong(lambda: nn.FocalModulation(4, dropout=1.0, key=KEY), r"rate must be in \[0, 1\): got 1.0"),
    Wrong(
        lambda: nn.FocalModulation(4, key=KEY)(jnp.ones((6, 4))),
        r"x must be \(height, width, dim=4\): got shape \(6, 4\)",
    ),
    Wrong(
        lambda: nn.FocalModulation(4, key=KEY)(jnp.ones((6, 6, 3))),
        r"x must be \(height, width, dim=4\): got shape \(6, 6, 3\)",
    ),
    Wrong(lambda: nn.SqueezeExcitation(8, key=KEY), "reduction must divide channels: got channels=8, reduction=16"),
    Wrong(
        lambda: nn.SqueezeExcitation(8, 2, key=KEY)(jnp.ones(8)),
        r"x must have spatial axes and one of channels: got shape \(8,\)",
    ),
    Wrong(
        lambda: nn.SqueezeExcitation(8, 2, key=KEY)(jnp.ones((3, 4))),
        r"the last axis of x must have channels=8 entries: got shape \(3, 4\)",
    ),
]
