"""The arithmetic of one tile of the backward pass."""

import jax.numpy as jnp

from .reader import Reader
from .tiling import Tile


def weights_and_gradient(reader: Reader, tile: Tile, flag, s, dp, lse, delta):
    """(p with dropout, ds of the bias, ds of the capped product) from the products q k^T and dout v^T.

    `lse`, in powers of two, and `delta` are given over the tile.
    """
    setting = reader.setting
    share = reader.cap(s)
    x, factor = reader.logits(s, share, tile)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = jnp.exp2(jnp.minimum(x * factor - lse, 0.0))
    p = reader.where_allowed(p, 0.0, tile, flag)
    dropped = p
    kept = reader.kept(tile, s.shape)
    if kept is not None:
        inverse = 1.0 / (1.0 - setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = p * (dp - delta)
    return dropped, ds, ds if share is None else ds * (1.0 - share * share)
