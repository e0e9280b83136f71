"""The forward pass: an online softmax over one row of tiles at a time."""

import jax
import jax.numpy as jnp

from ..._blocks import pad
from ..._fused import vary_alike
from ..problem import Extras, Setting, accumulator, quarantine, shape_of
from . import short, tiling
from .operands import cut, dot, put, rows_of, scaled
from .schedule import iterate, schedule_of
from .scores import Scores


def attend(q, k, v, extras: Extras, setting: Setting):
    """(out, logsumexp) as `reference.attend` gives them."""
    if tiling.is_short(shape_of(q, k, v)):
        return short.attend(q, k, v, extras, setting)
    sizes = tiling.tiled(shape_of(q, k, v), extras, tiling.FORWARD_TILES)
    dtype, v_dim = q.dtype, v.shape[-1]
    wide = accumulator(dtype)
    q, k, v = quarantine(q, k, v, extras)
    q, left = scaled(q, setting.scale)
    schedule = schedule_of(extras, sizes, by_keys=False)
    scores = Scores(extras, setting, sizes)
    q, k, v = pad(q, 1, sizes.q_block), pad(k, 1, sizes.kv_block), pad(v, 1, sizes.kv_block)
    shape = (sizes.repeat, sizes.q_block, sizes.kv_block)
    rows = sizes.repeat * sizes.q_block
    lanes = tiling.lanes_of(schedule[0], sizes)

    def together(whole, groups):
        where = [(i // sizes.kv_heads, i % sizes.kv_heads) for i in groups]
        qs = [rows_of(q, b, g * sizes.repeat, sizes.repeat) for b, g in where]
        ks, vs = ([rows_of(x, b, g, 1)[0] for b, g in where] for x in (k, v))

        def row(qi):
            first = qi * sizes.q_block
            q_tiles = [cut(x, first, sizes.q_block).reshape(rows, -1) for x in qs]

            def tile(lane, masked, kj, carry):
                top, total, acc = carry
                at = (*where[lane], first, kj * sizes.kv_block)
                k_tile, v_tile = (cut(x[lane], at[3], sizes.kv_block) for x in (ks, vs))
                s = dot(q_tiles[lane], k_tile, (1, 1))
                s = s if left == 1.0 else s * left
                s, _, _ = scores.logits(s.reshape(shape), at, masked, lambda x: x)
                # A masked logit is so far below the least `top` that its weight is 0.
                now = jnp.maximum(top, s.max(-1))
                p = jnp.exp(s - now[..., None])
                shrink = jnp.exp(top - now)
                total = total * shrink + p.sum(-1)
                kept = scores.kept(at, lambda x: x)
                if kept is not None:
                    p = jnp.where(kept, p * (1.0 / (1.0 - setting.dropout_rate)), 0)
                acc = acc * shrink.reshape(rows, 1) + dot(p.astype(v.dtype).reshape(rows, -1), v_tile, (1, 0))
                return now, total, acc

            start = (
                jnp.full(shape[:2], jnp.finfo(wide).min / 2, wide),
                jnp.zeros(shape[:2], wide),
                jnp.zeros((rows, v_dim), wide),
            )
            start = vary_alike(q, *start)[1:]
            return [finish(*carry) for carry in iterate(schedule, (*where[0], qi), tile, [start] * lanes)]

        def finish(top, total, acc):
            empty = total == 0
            total = jnp.where(empty, 1, total)
            return acc.reshape(*shape[:2], v_dim) / total[..., None], jnp.where(empty, -jnp.inf, top + jnp.log(total))

        out, lse = zip(*jax.lax.map(row, jnp.arange(q.shape[1] // sizes.q_block, dtype=jnp.int32)))
        join = lambda x: jnp.moveaxis(x, 0, 1).reshape(sizes.repeat, -1, *x.shape[3:])
        for (b, g), x in zip(where, out):
            whole = put(whole, join(x), b, g * sizes.repeat)
        return whole, [join(x) for x in lse]

    _, start = vary_alike(q, jnp.zeros((sizes.batch, sizes.q_seq, sizes.heads, v_dim), wide))
    groups = jnp.arange(sizes.batch * sizes.kv_heads, dtype=jnp.int32).reshape(-1, lanes)
    out, lse = jax.lax.scan(together, start, groups)
    lse = jnp.stack(lse, 1).reshape(sizes.batch, sizes.heads, -1)
    return out.astype(dtype), lse[:, :, : sizes.q_seq]
