"""The gradient of the queries: a block of them walks over its keys."""

import dataclasses

import jax.experimental.pallas as pl
import jax.numpy as jnp

from . import tiling
from .products import add_products, column, load, two_products, zeros
from .reader import LAYOUT
from .ring import Consumer, Load, Step, Walk, Work, launch, store
from .tile_math import gradient, weights
from .tiling import ROWS, SIDE, Tile, blocks_of, div, rem
from .visits import visits


def query_gradient(work: Work, spread):
    """In the layout of `tiling.operand`. `spread(q_block, kv_block)` is that of `blocks.spread`."""
    shape, q = work.shape, work.operands[0]
    both = (shape.dim + shape.v_dim) * q.dtype.itemsize
    # Two products of 128 keys leave registers for little else.
    light = not (work.prepared.heavy or work.prepared.seeds or work.setting.soft_cap)
    wide = light and max(shape.dim, shape.v_dim) <= 64 and tiling.shares_registers()
    plan = tiling.plan((128, 64) if wide else (64, 32), SIDE * both, both)
    table = visits(*spread(SIDE, plan.block))
    rows = blocks_of(shape.q_seq, SIDE)

    def base(_, block):
        row, head = rows - 1 - rem(block, rows), div(block, rows)
        h = rem(head, shape.heads)
        return Tile(div(head, shape.heads), h, div(h, shape.repeat), row * SIDE, jnp.int32(0))

    start = lambda tile: table.start(tile.b, tile.h, div(tile.i, SIDE))

    def step(ref, tile, n):
        entry = ref[start(tile) + 1 + n]
        return dataclasses.replace(tile, j=(entry >> 1) * plan.block), entry & 1

    def consume(at: Consumer):
        tile = dataclasses.replace(at.tile, i=at.tile.i + at.wg * ROWS)
        q_rows, dout_rows = (at.own(ref) for ref in at.fixed)
        place = pl.ds(tile.i, ROWS)
        numbers = lambda ref: load(ref.at[tile.b, tile.h, place], LAYOUT.reduce(1))
        lse, delta = (column(numbers(ref), (ROWS, plan.block)) for ref in at.operands[4:6])

        def walk(step: Step, dq):
            here = dataclasses.replace(tile, j=step.tile.j)
            keys, values = step.slot.wait(0)
            take = lambda s: weights(at.reader, here, step.flag, s, lse)
            (p, share), dp = two_products(q_rows, keys.transpose((1, 0)), dout_rows, values.transpose((1, 0)), take)
            _, _, ds = gradient(at.reader, here, p, share, dp, delta)
            (dq,) = add_products([dq], [(ds.astype(q.dtype), keys)], work.simulated is not None)
            step.slot.release(0)
            return dq

        dq = at.loop(walk, zeros((ROWS, shape.dim)))
        store(dq * work.setting.scale, q_rows, at.outs[0].at[tile.b, place, tile.h])

    queries = lambda tile: (tile.b, pl.ds(tile.i, SIDE), tile.h)
    keys = lambda tile: (tile.b, pl.ds(tile.j, plan.block), tile.g)
    return launch(
        work,
        "backward_q",
        consume,
        Walk(base, lambda ref, tile: ref[start(tile)], step),
        tiles=shape.batch * shape.heads * rows,
        table=table.table,
        fixed=[Load(0, (SIDE, shape.dim), queries), Load(3, (SIDE, shape.v_dim), queries)],
        groups=[[Load(1, (plan.block, shape.dim), keys), Load(2, (plan.block, shape.v_dim), keys)]],
        stages=plan.stages,
        outs=[(q.shape, q.dtype)],
    )[0]
