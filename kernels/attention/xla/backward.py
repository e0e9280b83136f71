"""The backward pass: one column of tiles at a time."""

from typing import Any

import jax
import jax.numpy as jnp

from ..._blocks import pad
from ..._fused import vary_alike
from ..problem import ALiBi, Extras, Setting, accumulator, quarantine, row_sums, shape_of
from . import short, tiling
from .operands import corner, cut, dot, nan_to_zero, put, rows_of, scaled
from .schedule import iterate, schedule_of
from .scores import Scores


def gradients(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    if tiling.is_short(shape_of(q, k, v)):
        return short.gradients(q, k, v, extras, setting, out, lse, dout, dlse, with_bias=with_bias)
    sizes = tiling.tiled(shape_of(q, k, v), extras, tiling.BACKWARD_TILES)
    dtypes, wide = (q.dtype, k.dtype, v.dtype), accumulator(q.dtype)
    empty = lse == -jnp.inf
    delta = row_sums(dout, out) - dlse
    lse, delta = (pad(jnp.where(empty, 0, x), 2, sizes.q_block) for x in (lse, delta))
    dout = jnp.where(jnp.swapaxes(empty, 1, 2)[..., None], 0, dout) if extras.mask is not None else dout
    q, k, v = quarantine(q, k, v, extras)
    q, left = scaled(q, setting.scale)
    schedule = schedule_of(extras, sizes, by_keys=True)
    scores = Scores(extras, setting, sizes)
    q, dout, k, v = (
        pad(q, 1, sizes.q_block),
        pad(dout, 1, sizes.q_block),
        pad(k, 1, sizes.kv_block),
        pad(v, 1, sizes.kv_block),
    )
    rows, shape = sizes.repeat * sizes.q_block, (sizes.kv_block, sizes.repeat, sizes.q_block)
    transpose = lambda x: jnp.moveaxis(x, -1, 0)
    inverse = 1.0 / (1.0 - setting.dropout_rate)

    # The gradient of a bias is summed over the groups in order.
    lanes = 1 if with_bias else tiling.lanes_of(schedule[0], sizes)

    def together(carry, groups):
        wholes, dbias = carry
        where = [(i // sizes.kv_heads, i % sizes.kv_heads) for i in groups]
        qs, douts = ([rows_of(x, b, g * sizes.repeat, sizes.repeat) for b, g in where] for x in (q, dout))
        ks, vs = ([rows_of(x, b, g, 1)[0] for b, g in where] for x in (k, v))

        def column(carry, kj):
            k_tiles, v_tiles = ([cut(x, kj * sizes.kv_block, sizes.kv_block) for x in xs] for xs in (ks, vs))

            def tile(lane, masked, qi, carry):
                dq, dk, dv, dbias = carry
                b, g = where[lane]
                at = (b, g, qi * sizes.q_block, kj * sizes.kv_block)
                q_tile, dout_tile = (cut(x[lane], at[2], sizes.q_block).reshape(rows, -1) for x in (qs, douts))
                of_rows = lambda x: jax.lax.dynamic_slice(x, (b, g * sizes.repeat, at[2]), (1, *shape[1:]))
                s = dot(k_tiles[lane], q_tile, (1, 1))
                s = s if left == 1.0 else s * left
                s, capped, allowed = scores.logits(s.reshape(shape), at, masked, transpose)
                p = jnp.exp(jnp.minimum(s - of_rows(lse), 0))
                if allowed is not None:
                    p = jnp.where(allowed, p, 0)
                dp = dot(v_tiles[lane], dout_tile, (1, 1)).reshape(shape)
                dropped, kept = p, scores.kept(at, transpose)
                if kept is not None:
                    dropped, dp = jnp.where(kept, p * inverse, 0), jnp.where(kept, dp * inverse, 0)
                ds = p * (dp - of_rows(delta))
                ds = jnp.where(allowed, ds, 0) if allowed is not None else ds
                if with_bias:
                    dbias = _add_bias(dbias, ds, at, scores)
                if setting.soft_cap is not None:
                    ds = ds * (1 - jnp.square(capped / setting.soft_cap))
                    ds = jnp.where(allowed, ds, 0) if allowed is not None else ds
                flat = lambda x: x.astype(q.dtype).reshape(sizes.kv_block, rows)
                dv = dv + dot(flat(dropped), dout_tile, (1, 0))
                dk = dk + dot(flat(ds), nan_to_zero(q_tile, extras), (1, 0))
                more = dot(flat(ds), nan_to_zero(k_tiles[lane], extras), (0, 0)).reshape(
                    sizes.repeat, sizes.q_block, -1
                )
                more = cut(dq, at[2], sizes.q_block) + more
                dq = jax.lax.dynamic_update_slice_in_dim(dq, more, at[2], 1)
                return dq, dk, dv, dbias

            dqs, dbias = carry
            _, dk, dv = vary_alike(q, *(jnp.zeros(x[0].shape, wide) for x in (k_tiles, v_tiles)))
            dqs, dks, dvs, dbiases = zip(*iterate(schedule, (*where[0], kj), tile, [(dq, dk, dv, dbias) for dq in dqs]))
            return (list(dqs), dbiases[0]), ([x * left for x in dks], list(dvs))

        _, *dqs = vary_alike(q, *(jnp.zeros((sizes.repeat, q.shape[1], q.shape[3]), wide) for _ in where))
        (dqs, dbias), (dks, dvs) = jax.lax.scan(
            column, (dqs, dbias), jnp.arange(k.shape[1] // sizes.kv_block, dtype=jnp.int32)
        )
        dq, dk, dv = wholes
        join = lambda x: x.reshape(1, -1, x.shape[-1])
        for (b, g), *parts in zip(where, dqs, dks, dvs):
            dq = put(dq, parts[0] * setting.scale, b, g * sizes.repeat)
            dk, dv = (put(whole, join(x), b, g) for whole, x in zip((dk, dv), parts[1:]))
        return ((dq, dk, dv), dbias), None

    wholes = tuple(
        jnp.zeros((sizes.batch, seq, *x.shape[2:]), wide)
        for seq, x in ((sizes.q_seq, q), (sizes.kv_seq, k), (sizes.kv_seq, v))
    )
    start = wholes, _bias_start(scores, wide) if with_bias else ()
    start = jax.tree.map(lambda x: vary_alike(q, x)[1], start)
    groups = jnp.arange(sizes.batch * sizes.kv_heads, dtype=jnp.int32).reshape(-1, lanes)
    (wholes, dbias), _ = jax.lax.scan(together, start, groups)
    grads = tuple(x.astype(dtype) for x, dtype in zip(wholes, dtypes))
    return (*grads, _bias_end(dbias, extras)) if with_bias else grads


def _bias_start(scores: Scores, dtype) -> Any:
    bias = scores.slopes if isinstance(scores.extras.bias, ALiBi) else scores.bias
    assert bias is not None
    return jnp.zeros(bias.shape, dtype)


def _add_bias(dbias, ds, at, scores: Scores):
    """Add the gradient of a tile, summed over the axes along which the bias broadcasts."""
    ds = jnp.moveaxis(ds, 0, -1)
    if isinstance(scores.extras.bias, ALiBi):
        ds = -ds * scores.distance(at).astype(ds.dtype)
    ds = ds.sum(tuple(axis for axis in range(3) if dbias.shape[axis + 1] == 1), keepdims=True)
    start = (at[0], at[1] * scores.shape.repeat, at[2], at[3])
    start = corner(*(0 if size == 1 else index for index, size in zip(start, dbias.shape)))
    here = jax.lax.dynamic_slice(dbias, start, (1, *ds.shape))
    return jax.lax.dynamic_update_slice(dbias, here + ds[None], start)


def _bias_end(dbias, extras: Extras):
    if isinstance(extras.bias, ALiBi):
        return dbias.reshape(extras.bias.slopes.shape).astype(extras.bias.slopes.dtype)
    _, _, q_seq, kv_seq = extras.bias.shape
    return dbias[:, :, :q_seq, :kv_seq].astype(extras.bias.dtype)
