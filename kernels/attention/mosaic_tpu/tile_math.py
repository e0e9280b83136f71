"""The arithmetic of one tile that the kernels share."""

import jax
import jax.numpy as jnp

from .reader import Reader
from .tiling import Tile


def dot(a, b, contract: tuple[int, int]):
    """The product of two tiles over one axis of each, summed in float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        a, b, (((contract[0],), (contract[1],)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def quarantine(q, k, v, masked: bool):
    """Rows of q and k that hold a number that is not finite, in k or v, become NaN; v becomes finite."""
    if not masked:
        return q, k, v
    bad_q = ~jnp.isfinite(q).all(-1, keepdims=True)
    bad_k = ~(jnp.isfinite(k).all(-1, keepdims=True) & jnp.isfinite(v).all(-1, keepdims=True))
    return jnp.where(bad_q, jnp.nan, q), jnp.where(bad_k, jnp.nan, k), jnp.where(jnp.isfinite(v), v, 0)


def finite(x, masked: bool):
    """NaN as 0: such a row has NaN logits already for those who may see it, and weight 0 must hide it from all
    others.
    """
    if not masked:
        return x
    y = x.astype(jnp.float32)
    return jnp.where(y == y, y, 0.0).astype(x.dtype)


def gradients(reader: Reader, tile: Tile, masked: bool, q, k, v, dout, lse, delta):
    """The tile of the backward pass, (keys, queries): (p with dropout, ds of the capped product, ds of the bias)."""
    setting = reader.setting
    s, capped, allowed = reader.logits(dot(k, q, (1, 1)) * setting.scale, tile, masked)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = jnp.exp(jnp.minimum(s - lse, 0.0))
    if allowed is not None:
        p = jnp.where(allowed, p, 0.0)
    dp = dot(v, dout, (1, 1))
    dropped = p
    kept = reader.kept(tile)
    if kept is not None:
        inverse = 1.0 / (1.0 - setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = p * (dp - delta)
    if allowed is not None:
        ds = jnp.where(allowed, ds, 0.0)
    inner = ds
    if setting.soft_cap is not None:
        inner = ds * (1.0 - jnp.square(capped / setting.soft_cap))
        inner = jnp.where(allowed, inner, 0.0) if allowed is not None else inner
    return dropped, inner, ds
