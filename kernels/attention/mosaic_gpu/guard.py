"""Numbers that are not finite: they may spoil those rows alone that see them."""

import jax.numpy as jnp


def quarantine(q, k, v, masked: bool):
    """Rows of q and k that hold a number that is not finite, in k or v, become NaN; v becomes finite.

    Without a mask every row sees every key, and nothing need be hidden.
    """
    if not masked:
        return q, k, v
    bad_q = ~jnp.isfinite(q).all(-1, keepdims=True)
    bad_k = ~(jnp.isfinite(k).all(-1, keepdims=True) & jnp.isfinite(v).all(-1, keepdims=True))
    return jnp.where(bad_q, jnp.nan, q), jnp.where(bad_k, jnp.nan, k), finite(v, masked)


def finite(x, masked: bool):
    """Zero for what is not finite. In the backward pass the logsumexp alone tells who saw such a number."""
    return jnp.where(jnp.isfinite(x), x, 0) if masked else x
