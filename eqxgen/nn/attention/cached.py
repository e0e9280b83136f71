"""Attention of the next tokens over a cache."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from eqxgen import ops
from eqxgen.nn.attention.cache import KVCache


def attend(
    q: Float[Array, "new heads head_dim"],
    k: Float[Array, "new kv_heads head_dim"],
    v: Float[Array, "new kv_heads v_head_dim"],
    cache: KVCache,
    *,
    count: int | Int[Array, ""] | None = None,
    window: int | None = None,
    bias: Any = None,
    scale: float | None = None,
    shared: int | None = None,
    together: bool = False,
) -> tuple[Float[Array, "new heads out_dim"], KVCache]:
    """Causal attention of the next tokens over the cache and one another, and the cache with them.

    Several tokens run on the fused op; one token is a pair of small products, which tiling does not speed up. Rows not
    yet written are masked. Many tokens into a ring, or with a window, cost a mask of `new` x (`length` + `new`)
    booleans.

    Args:
        q, k, v: of the tokens at positions `cache.count`, `cache.count + 1`, ...
        count: number of real tokens, as in `KVCache.append`; the result of the padding is undefined.
        window: each token attends to the last `window` tokens, itself included.
        bias: added to the logits: an `ops.ALiBi`, whose offset is set here, or an array that broadcasts to (heads, new,
            length) over the rows of the cache. An array is an error with a ring.
        scale: of the logits; 1 / sqrt(head_dim) by default.
        shared: number of leading entries of the keys that serve as values; v is then empty, (new, kv_heads, 0), and so
            is the cache's.
        together: the next tokens see one another whatever their order, where the sequence is causal by blocks.

    Returns:
        The result in q's dtype, all NaN after an overflow inside a compiled program; and the new cache.

    Raises:
        ValueError: as `KVCache.append`; a ring without a window, or with one longer than its rows; or tokens together
            with a window.
    """
    if together and window is not None:
        raise ValueError(f"together needs attention without a window: got window={window}")
    if cache.ring and (window is None or window > cache.length):
        raise ValueError(f"a ring of {cache.length} rows needs a window of at most as many tokens: got window={window}")
    if cache.ring and bias is not None and not isinstance(bias, ops.ALiBi):
        raise ValueError(
            "bias over the rows of a ring must be an ALiBi, as the tokens of the rows change: got an array; pass an "
            "ALiBi, or use a cache without ring"
        )
    new, after = q.shape[0], cache.append(k, v, count)
    at = cache.count + jnp.arange(new, dtype=jnp.int32)
    keys, values, held = after.k, after.v, after.positions()
    if cache.ring and new > 1:
        # The first new tokens attend to rows that the last new tokens overwrite.
        keys, values = (jnp.concatenate([kept, rows.astype(kept.dtype)]) for kept, rows in ((cache.k, k), (cache.v, v)))
        held = jnp.concatenate([cache.positions(), jnp.where(at < after.count, at, -1)])
    values = values if shared is None else keys[..., :shared]
    keys, values = keys.astype(q.dtype), values.astype(q.dtype)
    slopes = getattr(bias, "slopes", None)
    if slopes is not None:
        bias = _slanted(slopes, at, held) if new == 1 or window is not None else ops.ALiBi(slopes, cache.count)
    if new == 1:
        y = _one(q, keys, values, _seen(at, held, window), bias, q.shape[-1] ** -0.5 if scale is None else scale)
    elif window is not None:
        y = ops.dot_product_attention(q, keys, values, bias, _seen(at, held, window), scale=scale)
    else:
        mask = None if together else ops.masks.Causal(cache.count)
        y = ops.dot_product_attention(q, keys, values, bias, mask, scale=scale, key_value_seq_lengths=after.count)
    return (y if cache.ring else jnp.where(after.count > cache.length, jnp.nan, y)), after


def _one(q: Array, k: Array, v: Array, seen: Array, bias: Any, scale: float) -> Float[Array, "1 heads out_dim"]:
    """Attention of a single query."""
    _, heads, head_dim = q.shape
    rows, groups, _ = k.shape
    exact: Any = {"precision": "highest", "preferred_element_type": jnp.float32}
    # Matrix products, although XLA transposes the cache for them: elementwise sums of products take three times as
    # long in the step of a GPT-2 on a CPU.
    logits = (
        jnp.einsum("gnd,lgd->gnl", q.reshape(groups, heads // groups, head_dim), k, **exact).reshape(heads, rows)
        * scale
    )
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, (heads, 1, rows))[:, 0].astype(jnp.float32)
    weights = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(jnp.float32).min), axis=-1)
    y = jnp.einsum("gnl,lgd->gnd", weights.astype(v.dtype).reshape(groups, -1, rows), v, **exact)
    return y.reshape(1, heads, -1).astype(q.dtype)


def _seen(at: Array, held: Array, window: int | None) -> Bool[Array, "new rows"]:
    seen = (held >= 0)[None] & (held[None] <= at[:, None])
    return seen if window is None else seen & (held[None] > at[:, None] - window)


def _slanted(slopes: Array, at: Array, held: Array) -> Float[Array, "heads new rows"]:
    return -slopes[:, None, None] * jnp.abs(at[:, None] - held[None])[None].astype(jnp.float32)
