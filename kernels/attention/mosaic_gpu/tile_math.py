"""The arithmetic of one tile of the backward pass."""

import jax.numpy as jnp

from .reader import Reader
from .tiling import Tile


def weights(reader: Reader, tile: Tile, flag, s, lse):
    """(p without dropout, the product's share of the cap) from the product q k^T; `lse`, in powers of two, is given
    over the tile.
    """
    share = reader.cap(s)
    x, factor = reader.logits(s, share, tile)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = jnp.exp2(jnp.minimum(x * factor - lse, 0.0))
    return reader.where_allowed(p, 0.0, tile, flag), share


def gradient(reader: Reader, tile: Tile, p, share, dp, delta):
    """(p with dropout, ds of the bias, ds of the capped product) from `weights` and the product dout v^T; `delta` is
    given over the tile.
    """
    dropped, kept = p, reader.kept(tile, p.shape)
    if kept is not None:
        inverse = 1.0 / (1.0 - reader.setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = p * (dp - delta)
    return dropped, ds, ds if share is None else ds * (1.0 - share * share)
