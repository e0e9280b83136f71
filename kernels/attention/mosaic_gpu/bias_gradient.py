"""The gradient of a bias, summed over the axes along which it broadcasts."""

import dataclasses
import math

import jax
import jax.experimental.pallas as pl
import jax.numpy as jnp

from ..bias import ALiBi
from . import tiling
from .products import column, load, two_products, zeros
from .reader import LAYOUT
from .ring import Consumer, Load, Step, Walk, Work, launch, store
from .tile_math import gradient, weights
from .tiling import ROWS, SIDE, Tile, blocks_of, div, rem
from .visits import flags


def bias_gradient(work: Work, bias, spread):
    """Of the bias in its own shape, or of ALiBi's slopes. Each block of the bias sums all tiles that read it, in one
    order.

    `spread(q_block, kv_block)` is that of `blocks.spread`.
    """
    shape = work.shape
    alibi = isinstance(bias, ALiBi)
    size = (*bias.slopes.shape, 1, 1) if alibi else bias.shape
    b, h, t, s = (n > 1 for n in size)
    both = (shape.dim + shape.v_dim) * work.operands[0].dtype.itemsize
    plan = tiling.plan((64,), SIDE * 64 * 4 - SIDE * both, both, per_step=2 * SIDE * both)
    plan = dataclasses.replace(plan, stages=min(plan.stages, 2))
    table = flags(*spread(SIDE, plan.block))
    rows, columns = blocks_of(shape.q_seq, SIDE), blocks_of(shape.kv_seq, plan.block)
    # How many examples, heads, rows and columns of tiles share one tile of the bias.
    shared = (shape.batch // size[0], shape.heads // size[1], 1 if t else rows, 1 if s else columns)
    own = (size[0], size[1], rows if t else 1, columns if s else 1)

    def base(_, block):
        j, rest = rem(block, own[3]), div(block, own[3])
        i, rest = rem(rest, own[2]), div(rest, own[2])
        head = rem(rest, own[1])
        return Tile(div(rest, own[1]), head, jnp.int32(0), i * SIDE, j * plan.block)

    def step(ref, tile, n):
        column, n = rem(n, shared[3]), div(n, shared[3])
        row, n = rem(n, shared[2]), div(n, shared[2])
        head, example = rem(n, shared[1]), div(n, shared[1])
        head, example = (tile.h if h else head), (tile.b if b else example)
        row, column = div(tile.i, SIDE) + row, div(tile.j, plan.block) + column
        b_many, h_many = table.shape[0] > 1, table.shape[1] > 1
        at = ((example if b_many else 0) * table.shape[1] + (head if h_many else 0)) * rows + row
        here = Tile(example, head, div(head, shape.repeat), row * SIDE, column * plan.block)
        return here, ref[at * columns + column]

    def consume(at: Consumer):
        def walk(step: Step, total):
            here = dataclasses.replace(step.tile, i=step.tile.i + at.wg * ROWS)
            queries, dout, lse, delta, keys, values = step.slot.wait(0)

            def add(total):
                numbers = lambda ref: load(at.own(ref), LAYOUT.reduce(1))
                turn = lambda ref: ref.transpose((1, 0))
                sums, deltas = (column(numbers(ref), total.shape) for ref in (lse, delta))
                take = lambda s: weights(at.reader, here, step.flag, s, sums)
                (p, share), dp = two_products(at.own(queries), turn(keys), at.own(dout), turn(values), take)
                _, ds, _ = gradient(at.reader, here, p, share, dp, deltas)
                return total + (ds * -at.reader.distance(here, ds.shape) if alibi else ds)

            total = jax.lax.cond(step.flag > 0, add, lambda total: total, total)
            step.slot.release(0)
            return total

        total = at.loop(walk, zeros((ROWS, plan.block)))
        out = at.outs[0].at[at.tile.b, at.tile.h, pl.ds(at.tile.i + at.wg * ROWS, ROWS), pl.ds(at.tile.j, plan.block)]
        store(total, at.own(at.scratch[0]), out)

    queries = lambda tile: (tile.b, pl.ds(tile.i, SIDE), tile.h)
    numbers = lambda tile: (tile.b, tile.h, pl.ds(tile.i, SIDE))
    keys = lambda tile: (tile.b, pl.ds(tile.j, plan.block), tile.g)
    loads = [
        Load(0, (SIDE, shape.dim), queries),
        Load(3, (SIDE, shape.v_dim), queries),
        Load(4, (SIDE,), numbers),
        Load(5, (SIDE,), numbers),
        Load(1, (plan.block, shape.dim), keys),
        Load(2, (plan.block, shape.v_dim), keys),
    ]
    whole = (*own[:2], own[2] * SIDE, own[3] * plan.block)
    (dbias,) = launch(
        work,
        "backward_bias",
        consume,
        Walk(base, lambda ref, tile: math.prod(shared), step),
        tiles=math.prod(own),
        table=table.table,
        fixed=[],
        groups=[loads],
        stages=plan.stages,
        outs=[(whole, jnp.float32)],
        scratch=[((SIDE, plan.block), jnp.float32)],
    )
    dbias = dbias[:, :, : size[2]] if t else dbias.sum(2, keepdims=True)
    dbias = dbias[:, :, :, : size[3]] if s else dbias.sum(3, keepdims=True)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if alibi else dbias.astype(bias.dtype)
