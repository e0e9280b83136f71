"""The definition of attention in plain JAX: every argument, every derivative, memory in q_seq * kv_seq."""

import jax
import jax.numpy as jnp

from .. import _dropout
from .problem import ALiBi, Extras, Setting, accumulator, unsqueeze


def attend(q, k, v, extras: Extras, setting: Setting, *, first_query=0, queries: int | None = None):
    """`softmax(cap(scale * q k^T) + bias) v` over the allowed keys, and the logsumexp of those logits.

    Args:
        q, k, v: (batch, q_seq, heads, head_dim), (batch, kv_seq, kv_heads, head_dim), (batch, kv_seq, kv_heads,
            v_head_dim).
        first_query: the position of the first row of `q`; the extras are already cut to the rows of `q`.
        queries: rows at this position and beyond are padding, which sees no key.

    Returns:
        (batch, q_seq, heads, v_head_dim) in q's dtype and (batch, heads, q_seq) in float32. A row that sees no key is 0
        and -inf.
    """
    batch, q_seq, heads, dim = q.shape
    kv_seq, kv_heads = k.shape[1:3]
    dtype = accumulator(q.dtype)
    i = first_query + jnp.arange(q_seq, dtype=jnp.int32)[:, None]
    j = jnp.arange(kv_seq, dtype=jnp.int32)[None, :]

    allowed = jnp.ones((1, 1, 1, 1), bool) if queries is None else (i < queries).reshape(1, 1, -1, 1)
    if extras.mask is not None:
        views = [unsqueeze(x, axes) for axes, x in zip(extras.mask.axes, extras.mask.arrays())]
        allowed = allowed & extras.mask.allowed(i.reshape(1, 1, -1, 1), j.reshape(1, 1, 1, -1), *views)

    q, k, v, q_nan, k_nan = _quarantine(q, k, v)
    repeat = heads // kv_heads
    grouped = q.reshape(batch, q_seq, kv_heads, repeat, dim)
    logits = jnp.einsum("bqgnd,bkgd->bgnqk", grouped, k, preferred_element_type=dtype, precision="highest")
    # Masked here and again below: the product with a huge number may be infinite, and 0 times its derivatives NaN.
    logits = jnp.where(allowed, logits.reshape(batch, heads, q_seq, kv_seq), 0.0) * setting.scale
    if setting.soft_cap is not None:
        logits = setting.soft_cap * jnp.tanh(logits / setting.soft_cap)
    if isinstance(extras.bias, ALiBi):
        offset, slopes = unsqueeze(extras.bias.offset, "b"), unsqueeze(extras.bias.slopes, "bh")
        logits = logits - slopes.astype(dtype) * jnp.abs(
            i.reshape(1, 1, -1, 1) + offset - j.reshape(1, 1, 1, -1)
        ).astype(dtype)
    elif extras.bias is not None:
        logits = logits + extras.bias.astype(dtype)
    logits = logits + q_nan[:, :, :, None] + jnp.repeat(k_nan, repeat, axis=1)[:, :, None, :]

    # A row whose logits are all -inf (a bias used as a mask) is a row that sees no key.
    low = jnp.finfo(dtype).min / 2
    logits = jnp.where(allowed, logits, low)
    top = jnp.maximum(jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=low)), low)
    weights = jnp.where(allowed, jnp.exp(logits - top), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    logsumexp = jnp.where(empty, -jnp.inf, top + jnp.log(total))[..., 0]
    weights = jnp.where(allowed, weights / total, 0.0)
    if extras.seeds is not None:
        seeds = extras.seeds[:, :, None, None, :]
        kept = _dropout.keep(
            seeds[..., 0], seeds[..., 1], i.reshape(1, 1, -1, 1), j.reshape(1, 1, 1, -1), setting.dropout_rate
        )
        weights = jnp.where(kept, weights / (1.0 - setting.dropout_rate), 0.0)
    weights = weights.reshape(batch, kv_heads, repeat, q_seq, kv_seq).astype(v.dtype)
    out = jnp.einsum("bgnqk,bkgd->bqgnd", weights, v, preferred_element_type=dtype, precision="highest")
    return out.reshape(batch, q_seq, heads, -1).astype(q.dtype), logsumexp


def _quarantine(q, k, v):
    """Finite q, k and v, and NaN to add to the logits of each query and key that is not.

    A product with weight 0 would spread NaN and inf to every row; the logits spread it to the rows that see it.
    """
    finite_q, finite_k, finite_v = jnp.isfinite(q), jnp.isfinite(k), jnp.isfinite(v)
    dtype = accumulator(q.dtype)
    nan = lambda good: jnp.where(jnp.swapaxes(good, 1, 2), 0.0, jnp.nan).astype(dtype)
    q_nan, k_nan = nan(finite_q.all(-1)), nan(finite_k.all(-1) & finite_v.all(-1))
    return jnp.where(finite_q, q, 0), jnp.where(finite_k, k, 0), jnp.where(finite_v, v, 0), q_nan, k_nan
