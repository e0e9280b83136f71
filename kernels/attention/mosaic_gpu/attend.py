"""The forward pass: a block of queries walks over its keys with a running maximum and sum."""

import dataclasses
import math
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from .. import blocks
from ..problem import Extras, Setting
from . import pattern, tiling
from .extras import Prepared
from .guard import quarantine
from .products import add_products, column, product, product_and_sum, zeros
from .ring import Consumer, Load, Step, Walk, Work, launch, store
from .tiling import CONSUMERS, ROWS, SIDE, Tile, blocks_of, div, rem
from .visits import visits

# Below every logit that is not -inf; subtracting it from -inf gives weight 0, where -inf itself would give NaN.
LOW = -1e30


def attend(q, k, v, extras: Extras, setting: Setting, *, simulated: Any = None):
    """`reference.attend` as one kernel."""
    shape = tiling.shape_of(q, k, v)
    dims = q.shape[3], v.shape[3]
    q, k, v = quarantine(q, k, v, extras.mask is not None)
    size = q.dtype.itemsize
    held = SIDE * size * (shape.dim + (shape.v_dim if shape.v_dim != shape.dim else 0))
    prepared = Prepared(extras, flip=False)
    # A pattern's rows and 128 keys do not fit the registers both.
    wide = max(shape.dim, shape.v_dim) <= 128 and not pattern.holds_pattern(prepared.mask) and tiling.shares_registers()
    plan = tiling.plan((128, 64) if wide else (64,), held, (shape.dim + shape.v_dim) * size)
    table = visits(*blocks.spread(extras.mask, shape.q_seq, shape.kv_seq, SIDE, plan.block))
    operands = [tiling.operand(q, shape.dim), tiling.operand(k, shape.dim), tiling.operand(v, shape.v_dim)]
    work = Work(shape, setting, prepared, operands, False, simulated)
    rows = blocks_of(shape.q_seq, SIDE)

    def base(_, block):
        # The last queries of a causal mask have the most keys: they start first.
        row, head = rows - 1 - rem(block, rows), div(block, rows)
        h = rem(head, shape.heads)
        return Tile(div(head, shape.heads), h, div(h, shape.repeat), row * SIDE, jnp.int32(0))

    start = lambda tile: table.start(tile.b, tile.h, div(tile.i, SIDE))

    def step(ref, tile, n):
        entry = ref[start(tile) + 1 + n]
        return dataclasses.replace(tile, j=(entry >> 1) * plan.block), entry & 1

    def consume(at: Consumer):
        tile = dataclasses.replace(at.tile, i=at.tile.i + at.wg * ROWS)
        q_rows = at.own(at.fixed[0])
        size = (ROWS, plan.block)
        # The warpgroups take turns: while one has the tensor cores, the other takes exponentials.
        pl.when(at.wg == 1)(at.switch)

        def weigh(step: Step, s, top, total):
            """The weights of a step's keys, the running maximum and sum with them, and what the sums before shrink by."""
            here = dataclasses.replace(tile, j=step.tile.j)
            x, factor = at.reader.logits(s, at.reader.cap(s), here)
            x = at.reader.where_allowed(x, -math.inf, here, step.flag)
            new = jnp.maximum(top, x.max(1) * factor)
            p = jnp.exp2(x * factor - column(new, size))
            shrink = jnp.exp2(top - new)
            return p, new, total * shrink + p.sum(1), shrink

        def as_factor(step: Step, p):
            """The weights as the tensor cores take them. They must not be made while those work, or each product waits for the last."""
            kept = at.reader.kept(dataclasses.replace(tile, j=step.tile.j), size)
            if kept is not None:
                p = jnp.where(kept, p * (1.0 / (1.0 - setting.dropout_rate)), 0.0)
            return p.astype(q.dtype)

        # A turn's weights meet their values in the next turn, whose exponentials are then taken beside that product.
        def walk(n, carry):
            out, p, top, total = carry
            step, before = at.step(n), at.slot(n - 1)
            (keys,), (values,) = step.slot.wait(0), before.wait(1)

            def take(s):
                step.slot.release(0)
                found = jax.lax.optimization_barrier(weigh(step, s, top, total))
                at.switch()
                return found

            (p, top, total, shrink), out = product_and_sum(
                q_rows,
                keys.transpose((1, 0)),
                out,
                p,
                values,
                take,
                at.switch,
                overlap=work.prepared.bias is None,  # the last turn's weights would not fit the registers as well
                simulated=simulated is not None,
            )
            before.release(1)
            return out * column(shrink, out.shape), as_factor(step, p), top, total

        full = lambda value: plgpu.layout_cast(jnp.full((ROWS,), value, jnp.float32), plgpu.Layout.WGMMA.reduce(1))
        nothing = zeros((ROWS, shape.v_dim)), full(LOW), full(0.0)

        def turns():
            out, top, total = nothing
            step = at.step(jnp.int32(0))
            (keys,) = step.slot.wait(0)
            s = product(q_rows, keys.transpose((1, 0)), at.switch)
            step.slot.release(0)
            p, top, total, _ = weigh(step, s, top, total)
            at.switch()
            out, p, top, total = jax.lax.fori_loop(1, at.count, walk, (out, as_factor(step, p), top, total))
            last = at.slot(at.count - 1)
            (values,) = last.wait(1)
            (out,) = add_products([out], [(p, values)], simulated is not None)
            last.release(1)
            return out, top, total

        out, top, total = jax.lax.cond(at.count > 0, turns, lambda: nothing)
        pl.when(at.wg == 0)(at.switch)

        empty = total == 0.0
        out = out * column(1.0 / jnp.where(empty, 1.0, total), out.shape)
        lse = jnp.where(empty, -math.inf, (top + jnp.log2(total)) * math.log(2.0))
        place = pl.ds(tile.i, ROWS)
        buffer = at.fixed[0] if shape.v_dim == shape.dim else at.scratch[1]
        store(out, at.own(buffer), at.outs[0].at[tile.b, place, tile.h])
        store(lse, at.scratch[0].at[at.wg], at.outs[1].at[tile.b, tile.h, place])

    held = [((CONSUMERS, ROWS), jnp.float32)]
    if shape.v_dim != shape.dim:
        held.append(((SIDE, shape.v_dim), q.dtype))
    keys = lambda tile: (tile.b, pl.ds(tile.j, plan.block), tile.g)
    out, lse = launch(
        work,
        "forward",
        consume,
        Walk(base, lambda ref, tile: ref[start(tile)], step),
        tiles=shape.batch * shape.heads * rows,
        table=table.table,
        fixed=[Load(0, (SIDE, shape.dim), lambda tile: (tile.b, pl.ds(tile.i, SIDE), tile.h))],
        groups=[[Load(1, (plan.block, shape.dim), keys)], [Load(2, (plan.block, shape.v_dim), keys)]],
        stages=plan.stages,
        outs=[((*operands[0].shape[:3], shape.v_dim), q.dtype), ((shape.batch, shape.heads, rows * SIDE), jnp.float32)],
        scratch=held,
    )
    return tiling.result(out, shape.q_seq, dims[1]), lse[:, :, : shape.q_seq]
