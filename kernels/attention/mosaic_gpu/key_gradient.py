"""The gradients of the keys and values: a block of them walks over the queries of all heads that share it."""

import dataclasses

import jax.experimental.pallas as pl
import jax.numpy as jnp

from . import tiling
from .products import add_products, load, product, row, two_products, zeros
from .reader import LAYOUT
from .ring import Consumer, Load, Step, Walk, Work, launch, store
from .tile_math import gradient, weights
from .tiling import ROWS, SIDE, Tile, blocks_of, div, rem
from .visits import by_keys, visits

# Wider, the two sums of a row do not fit the registers, and take a kernel each: those that warpgroups share, and those
# that one has by itself.
WIDEST_SUMS, WIDEST_OWN_SUMS = 320, 192


def key_gradients(work: Work, spread):
    """(dk, dv) in the layout of `tiling.operand`. `spread(q_block, kv_block)` is that of `blocks.spread`."""
    if work.shape.dim + work.shape.v_dim <= (WIDEST_SUMS if tiling.shares_registers() else WIDEST_OWN_SUMS):
        return _kernel(work, spread, keys=True, values=True)
    return *_kernel(work, spread, keys=True, values=False), *_kernel(work, spread, keys=False, values=True)


def _kernel(work: Work, spread, *, keys: bool, values: bool):
    shape, operands = work.shape, work.operands
    dtype = operands[0].dtype
    simulated = work.simulated is not None
    both = (shape.dim + shape.v_dim) * dtype.itemsize
    # Dropout's random numbers take registers of their own, and the time: a smaller product is not what it waits for.
    wide = shape.dim + shape.v_dim <= (256 if work.prepared.seeds is None else 128)
    plan = tiling.plan((64, 32) if wide and tiling.shares_registers() else (32,), SIDE * both, both, per_step=512)
    columns = blocks_of(shape.q_seq, plan.block)
    some, every = spread(plan.block, SIDE)
    table = visits(*by_keys(some, every, shape.repeat))
    rows = blocks_of(shape.kv_seq, SIDE)

    def base(_, block):
        row, head = rem(block, rows), div(block, rows)
        g = rem(head, shape.kv_heads)
        return Tile(div(head, shape.kv_heads), g * shape.repeat, g, jnp.int32(0), row * SIDE)

    start = lambda tile: table.start(tile.b, tile.g, div(tile.j, SIDE))

    def step(ref, tile, n):
        entry = ref[start(tile) + 1 + n]
        head, column = div(entry >> 1, columns), rem(entry >> 1, columns)
        return dataclasses.replace(tile, h=tile.g * shape.repeat + head, i=column * plan.block), entry & 1

    def consume(at: Consumer):
        own = at.tile.j + at.wg * ROWS
        key_rows, value_rows = (at.own(ref) for ref in at.fixed)
        size = (ROWS, plan.block)

        def walk(step: Step, sums):
            here = dataclasses.replace(step.tile, j=own)
            queries, dout, *numbers = step.slot.wait(0)
            lse, delta = (row(load(ref, LAYOUT.reduce(0)), size) for ref in numbers)
            take = lambda s: weights(at.reader, here, step.flag, s, lse)
            if keys:
                (p, share), dp = two_products(
                    key_rows, queries.transpose((1, 0)), value_rows, dout.transpose((1, 0)), take
                )
            else:
                p, share = take(product(key_rows, queries.transpose((1, 0))))
                dp = p
            p, _, ds = gradient(at.reader, here, p, share, dp, delta)
            factors = ([(ds, queries)] if keys else []) + ([(p, dout)] if values else [])
            sums = add_products(sums, [(x.astype(dtype), y) for x, y in factors], simulated)
            step.slot.release(0)
            return sums

        dims = ([shape.dim] if keys else []) + ([shape.v_dim] if values else [])
        sums = list(at.loop(walk, tuple(zeros((ROWS, dim)) for dim in dims)))
        if keys:
            sums[0] = sums[0] * work.setting.scale
        buffers = ([key_rows] if keys else []) + ([value_rows] if values else [])
        for value, buffer, out in zip(sums, buffers, at.outs):
            store(value, buffer, out.at[at.tile.b, pl.ds(own, ROWS), at.tile.g])

    queries = lambda tile: (tile.b, pl.ds(tile.i, plan.block), tile.h)
    numbers = lambda tile: (tile.b, tile.h, pl.ds(tile.i, plan.block))
    place = lambda tile: (tile.b, pl.ds(tile.j, SIDE), tile.g)
    step_loads = [Load(0, (plan.block, shape.dim), queries), Load(3, (plan.block, shape.v_dim), queries)]
    return launch(
        work,
        "backward_kv",
        consume,
        Walk(base, lambda ref, tile: ref[start(tile)], step),
        tiles=shape.batch * shape.kv_heads * rows,
        table=table.table,
        fixed=[Load(1, (SIDE, shape.dim), place), Load(2, (SIDE, shape.v_dim), place)],
        groups=[[*step_loads, Load(4, (plan.block,), numbers), Load(5, (plan.block,), numbers)]],
        stages=plan.stages,
        outs=[(operands[n].shape, dtype) for n, wanted in ((1, keys), (2, values)) if wanted],
    )
