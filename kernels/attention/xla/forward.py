"""The output and the logsumexp, one row of tiles at a time."""

import jax
import jax.numpy as jnp

from ..problem import Extras, Setting, accumulator
from . import plan as sizes
from .operands import cut_axis, dot, grouped, pad, quarantine, scaled, varying
from .plan import make_plan
from .tiles import Tiles
from .walk import lanes_of, visits_of, walk


def attend(q, k, v, extras: Extras, setting: Setting):
    """`reference.attend`, one tile at a time."""
    plan = make_plan(q, k, sizes.FORWARD_TILE_OPEN if extras.mask is None else sizes.FORWARD_TILE)
    dtype, v_dim = q.dtype, v.shape[-1]
    wide = accumulator(dtype)
    q, k, v = quarantine(q, k, v, extras)
    q, left = scaled(q, setting.scale)
    visits = visits_of(extras, plan, turned=False)
    tiles = Tiles(extras, setting, plan)
    q = grouped(q, plan)
    k, v = (pad(x, 2, plan.kv_block).reshape(-1, *pad(x, 2, plan.kv_block).shape[2:]) for x in (k, v))
    shape = (plan.repeat, plan.q_block, plan.kv_block)
    rows = plan.repeat * plan.q_block

    lanes = lanes_of(visits, plan)

    def together(operands):
        index, q, k, v = operands
        where = [(i // plan.kv_heads, i % plan.kv_heads) for i in index]

        def row(qi):
            first = qi * plan.q_block
            q_tiles = [cut_axis(x, first, plan.q_block, 1).reshape(rows, -1) for x in q]

            def tile(lane, masked, kj, carry):
                top, total, acc = carry
                at = (*where[lane], first, kj * plan.kv_block)
                k_tile, v_tile = (cut_axis(x[lane], at[3], plan.kv_block, 0) for x in (k, v))
                s = dot(q_tiles[lane], k_tile, (1, 1))
                s = s if left == 1.0 else s * left
                s, _, allowed = tiles.logits(s.reshape(shape), at, masked, lambda x: x)
                now = jnp.maximum(top, s.max(-1))
                p = jnp.exp(s - now[..., None])
                if allowed is not None:
                    p = jnp.where(allowed, p, 0)
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
            out = (acc.reshape(*shape[:2], v_dim) / total[..., None]).astype(dtype)
            return out, jnp.where(empty, -jnp.inf, top + jnp.log(total))

        join = lambda x: jnp.moveaxis(x, 0, 1).reshape(plan.repeat, -1, *x.shape[3:])
        return jax.tree.map(join, jax.lax.map(row, jnp.arange(q.shape[2] // plan.q_block, dtype=jnp.int32)))

    index = jnp.arange(plan.batch * plan.kv_heads, dtype=jnp.int32)
    parts = jax.lax.map(together, jax.tree.map(lambda x: x.reshape(-1, lanes, *x.shape[1:]), (index, q, k, v)))
    out, lse = (jnp.stack(x, 1) for x in zip(*parts))
    whole = lambda x: x.reshape(plan.batch, plan.kv_heads * plan.repeat, *x.shape[3:])[:, :, : plan.q_seq]
    return whole(out), whole(lse)
