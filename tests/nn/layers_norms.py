"""The table's norms that have statistics of a batch, or that are of one's own."""

import jax.numpy as jnp

from eqxgen import nn
from tests.nn.layer_rows import Row, Wrong

LAYERS = {
    "RMSNorm": Row(lambda key: nn.RMSNorm(5, key=key), (7, 5), ((7, 5),)),
    "RMSNorm without affine": Row(lambda key: nn.RMSNorm(5, affine=False), (5,), ((5,),)),
    "BatchNorm": Row(lambda key: nn.BatchNorm(4, key=key), (3, 5, 4), ((3, 5, 4),), stateful=True),
    "BatchNorm of vectors, without affine": Row(
        lambda key: nn.BatchNorm(4, affine=False, momentum=None), (4,), ((4,),), stateful=True
    ),
    "LayerScale": Row(lambda key: nn.LayerScale(5, 0.5, key=key), (7, 5), ((7, 5),)),
    "ActNorm": Row(lambda key: nn.ActNorm(4, key=key), (3, 5, 4), ((3, 5, 4),)),
}

WRONG = [
    Wrong(lambda: nn.LayerScale(4, 0.0), "value must be positive.*: got 0.0"),
    Wrong(
        lambda: nn.LayerScale(4)(jnp.ones((3, 5))),
        r"the last axis of x must have dim=4 entries: got shape \(3, 5\)",
    ),
    Wrong(lambda: nn.RMSNorm(0), "dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.RMSNorm(4, epsilon=-1.0), "epsilon must be positive and finite: got -1.0"),
    Wrong(
        lambda: nn.RMSNorm(4, affine=False)(jnp.ones((3, 5))),
        r"the last axis of x must have dim=4 entries: got shape \(3, 5\)",
    ),
    Wrong(
        lambda: nn.LayerNorm(4, affine=False)(jnp.ones((3, 5))),
        r"the last axis of x must have dim=4 entries: got shape \(3, 5\)",
    ),
    Wrong(
        lambda: nn.GroupNorm(4, 2)(jnp.ones((3, 6))),
        r"the last axis of x must have channels=4 entries: got shape \(3, 6\)",
    ),
    Wrong(lambda: nn.BatchNorm(0), "channels must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.BatchNorm(4, momentum=1.5), r"momentum must be in \[0, 1\] or None: got 1.5"),
    Wrong(lambda: nn.BatchNorm(4, epsilon=0.0), "epsilon must be positive and finite: got 0.0"),
    Wrong(
        lambda: nn.BatchNorm(4)(jnp.ones((3, 5)), nn.BatchNorm(4).init_state()),
        r"the last axis of x must have channels=4 entries: got shape \(3, 5\)",
    ),
    Wrong(
        lambda: nn.BatchNorm(4, axis_name=None)(jnp.ones(4), nn.BatchNorm(4).init_state()),
        r"training needs at least 2 values for each channel: got shape \(4,\), axis_name=\(\)",
    ),
    Wrong(
        lambda: nn.BatchNorm(4)(jnp.ones((8, 4)), nn.BatchNorm(4).init_state()),
        r"axis_name=\('batch',\) must be axes of jax.vmap or of a mesh: got x of shape \(8, 4\) without them; call "
        r"jax.vmap\(norm, axis_name='batch', in_axes=\(0, None\), out_axes=\(0, None\)\)\(x, state\)",
    ),
    Wrong(lambda: nn.ActNorm(4)(jnp.ones(5)), r"the last axis of x must have channels=4 entries: got shape \(5,\)"),
    Wrong(
        lambda: nn.ActNorm(4).started(jnp.ones((1, 4))),
        r"batch must have at least 2 values for each channel: got shape \(1, 4\)",
    ),
]
