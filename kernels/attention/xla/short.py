"""Both passes of short sequences: all pairs of all heads in one tile, by one product over all heads.

`tiling.is_short` limits their number, so memory stays linear in the lengths.
"""

import jax.numpy as jnp

from ..problem import ALiBi, Extras, Setting, Shape, accumulator, blocked, quarantine, shape_of
from .operands import dot, nan_to_zero, scaled
from .scores import Scores


def attend(q, k, v, extras: Extras, setting: Setting):
    """(out, logsumexp) as `reference.attend` gives them."""
    dtype, wide = q.dtype, accumulator(q.dtype)
    whole = Whole(extras, setting, shape_of(q, k, v))
    q, k, v = quarantine(*heads_second(q, k, v), extras)
    q, left = scaled(q, setting.scale)
    s = whole.product(q, k)
    s, _, _ = whole.logits(s if left == 1.0 else s * left, None, extras.mask is not None, lambda x: x)
    top = jnp.maximum(s.max(-1, keepdims=True), jnp.finfo(wide).min / 2)
    p = jnp.exp(s - top)
    total = p.sum(-1, keepdims=True)
    kept = whole.kept(None, lambda x: x)
    if kept is not None:
        p = jnp.where(kept, p * (1.0 / (1.0 - setting.dropout_rate)), 0)
    empty = total == 0
    total = jnp.where(empty, 1, total)
    out = whole.over_keys(p.astype(v.dtype), v) / total
    (out,) = heads_second(out.astype(dtype))
    return out, jnp.where(empty, -jnp.inf, top + jnp.log(total))[..., 0]


def gradients(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    dtypes, wide = (q.dtype, k.dtype, v.dtype), accumulator(q.dtype)
    masked, whole = extras.mask is not None, Whole(extras, setting, shape_of(q, k, v))
    q, k, v, out, dout = heads_second(q, k, v, out, dout)
    delta = jnp.sum(dout.astype(wide) * out.astype(wide), -1, keepdims=True) - dlse[..., None]
    empty = (lse == -jnp.inf)[..., None]
    lse = jnp.where(empty, 0, lse[..., None])
    dout = jnp.where(empty, 0, dout) if masked else dout
    q, k, v = quarantine(q, k, v, extras)
    q, left = scaled(q, setting.scale)
    s = whole.product(q, k)
    s, capped, allowed = whole.logits(s if left == 1.0 else s * left, None, masked, lambda x: x)
    of_allowed = (lambda x: x) if allowed is None else (lambda x: jnp.where(allowed, x, 0))
    p = of_allowed(jnp.exp(jnp.minimum(s - lse, 0)))
    dp = whole.product(dout, v)
    dropped, kept = p, whole.kept(None, lambda x: x)
    if kept is not None:
        inverse = 1.0 / (1.0 - setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0), jnp.where(kept, dp * inverse, 0)
    ds = of_allowed(p * (dp - delta))
    dbias = _bias_gradient(ds, extras, whole) if with_bias else None
    if setting.soft_cap is not None:
        ds = of_allowed(ds * (1 - jnp.square(capped / setting.soft_cap)))
    narrow = ds.astype(dtypes[0])
    dq = whole.over_keys(narrow, nan_to_zero(k, extras)) * setting.scale
    dk = whole.over_queries(narrow, nan_to_zero(q, extras)) * left
    dv = whole.over_queries(dropped.astype(dtypes[0]), dout)
    grads = heads_second(*(x.astype(dtype) for x, dtype in zip((dq, dk, dv), dtypes)))
    return (*grads, dbias) if with_bias else tuple(grads)


def heads_second(*arrays):
    """(batch, seq, heads, dim) as (batch, heads, seq, dim), which one product over all heads takes, and back."""
    return [jnp.swapaxes(x, 1, 2) for x in arrays]


class Whole(Scores):
    """Score modification on all pairs, with axes (example, head, query, key), and the products of pairs and rows."""

    def __init__(self, extras: Extras, setting: Setting, shape: Shape):
        super().__init__(extras, setting, blocked(shape, shape.q_seq, shape.kv_seq))

    def cut(self, x, at):
        return x

    def positions(self, at):
        i, j = (jnp.arange(size, dtype=jnp.int32) for size in (self.shape.q_seq, self.shape.kv_seq))
        return i.reshape(1, 1, -1, 1), j.reshape(1, 1, 1, -1)

    def seeds(self, at):
        return self.extras.seeds[:, :, None, None]

    def product(self, rows, keys):
        """(examples, heads, queries, keys) of rows (examples, heads, queries, dim) and keys (examples, kv_heads, keys,
        dim).
        """
        return dot(self._grouped(rows), keys, (3, 3), batch=2).reshape(*rows.shape[:3], -1)

    def over_keys(self, pairs, keys):
        """(examples, heads, queries, dim): for each query the sum over keys of pair times key."""
        return dot(self._grouped(pairs), keys, (3, 2), batch=2).reshape(*pairs.shape[:3], -1)

    def over_queries(self, pairs, rows):
        """(examples, kv_heads, keys, dim): for each key the sum over its queries of pair times row."""
        return dot(self._grouped(pairs), self._grouped(rows), (2, 2), batch=2)

    def _grouped(self, x):
        """The rows of all heads that read one key head, one after another."""
        return x.reshape(x.shape[0], self.shape.kv_heads, -1, x.shape[3])


def _bias_gradient(ds, extras: Extras, whole: Whole):
    """The gradient of each pair, summed over the axes along which the bias broadcasts."""
    leaf = like = extras.bias
    if isinstance(extras.bias, ALiBi):
        leaf, like = extras.bias.slopes, whole.slopes
        ds = -ds * whole.distance(None).astype(ds.dtype)
    ds = ds.sum(tuple(axis for axis in range(4) if like.shape[axis] == 1), keepdims=True)
    return ds.reshape(leaf.shape).astype(leaf.dtype)
