"""The output and the logsumexp, one row of tiles at a time."""

import jax
import jax.numpy as jnp

from ..problem import Extras, Setting, accumulator
from . import plan as sizes
from . import short
from .operands import cut, dot, pad, put, quarantine, rows_of, scaled, varying
from .plan import make_plan
from .tiles import Tiles
from .walk import lanes_of, visits_of, walk


def attend(q, k, v, extras: Extras, setting: Setting):
    """`reference.attend`, one tile at a time."""
    if sizes.is_short(q, k):
        return short.attend(q, k, v, extras, setting)
    plan = make_plan(q, k, extras, sizes.FORWARD_TILES)
    dtype, v_dim = q.dtype, v.shape[-1]
    wide = accumulator(dtype)
    q, k, v = quarantine(q, k, v, extras)
    q, left = scaled(q, setting.scale)
    visits = visits_of(extras, plan, turned=False)
    tiles = Tiles(extras, setting, plan)
    q, k, v = pad(q, 1, plan.q_block), pad(k, 1, plan.kv_block), pad(v, 1, plan.kv_block)
    shape = (plan.repeat, plan.q_block, plan.kv_block)
    rows = plan.repeat * plan.q_block
    lanes = lanes_of(visits, plan)

    def together(whole, groups):
        where = [(i // plan.kv_heads, i % plan.kv_heads) for i in groups]
        qs = [rows_of(q, b, g * plan.repeat, plan.repeat) for b, g in where]
        ks, vs = ([rows_of(x, b, g, 1)[0] for b, g in where] for x in (k, v))

        def row(qi):
            first = qi * plan.q_block
            q_tiles = [cut(x, first, plan.q_block).reshape(rows, -1) for x in qs]

            def tile(lane, masked, kj, carry):
                top, total, acc = carry
                at = (*where[lane], first, kj * plan.kv_block)
                k_tile, v_tile = (cut(x[lane], at[3], plan.kv_block) for x in (ks, vs))
                s = dot(q_tiles[lane], k_tile, (1, 1))
                s = s if left == 1.0 else s * left
                s, _, _ = tiles.logits(s.reshape(shape), at, masked, lambda x: x)
                # The logit of a masked pair is so far below the least `top` that its weight is 0.
                now = jnp.maximum(top, s.max(-1))
                p = jnp.exp(s - now[..., None])
                shrink = jnp.exp(top - now)
                total = total * shrink + p.sum(-1)
                kept = tiles.kept(at, lambda x: x)
                if kept is not None:
                    p = jnp.where(kept, p * (1.0 / (1.0 - setting.dropout_rate)), 0)
                acc = acc * shrink.reshape(rows, 1) + dot(p.astype(v.dtype).reshape(rows, -1), v_tile, (1, 0))
                return now, total, acc

            start = (
                jnp.full(shape[:2], jnp.finfo(wide).min / 2, wide),
                jnp.zeros(shape[:2], wide),
                jnp.zeros((rows, v_dim), wide),
            )
            start = tuple(varying(x, q) for x in start)
            return [finish(*carry) for carry in walk(visits, (*where[0], qi), tile, [start] * lanes)]

        def finish(top, total, acc):
            empty = total == 0
            total = jnp.where(empty, 1, total)
            return acc.reshape(*shape[:2], v_dim) / total[..., None], jnp.where(empty, -jnp.inf, top + jnp.log(total))

        out, lse = zip(*jax.lax.map(row, jnp.arange(q.shape[1] // plan.q_block, dtype=jnp.int32)))
        join = lambda x: jnp.moveaxis(x, 0, 1).reshape(plan.repeat, -1, *x.shape[3:])
        for (b, g), x in zip(where, out):
            whole = put(whole, join(x), b, g * plan.repeat)
        return whole, [join(x) for x in lse]

    start = varying(jnp.zeros((plan.batch, plan.q_seq, plan.kv_heads * plan.repeat, v_dim), wide), q)
    groups = jnp.arange(plan.batch * plan.kv_heads, dtype=jnp.int32).reshape(-1, lanes)
    out, lse = jax.lax.scan(together, start, groups)
    lse = jnp.stack(lse, 1).reshape(plan.batch, plan.kv_heads * plan.repeat, -1)
    return out.astype(dtype), lse[:, :, : plan.q_seq]
