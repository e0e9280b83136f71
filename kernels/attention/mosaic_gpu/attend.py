"""The forward pass: a block of queries walks over its keys, see `running`, and the results are written."""

import dataclasses
import math
from typing import Any

import jax.experimental.pallas as pl
import jax.numpy as jnp

from .. import blocks
from ..problem import Extras, Setting
from . import pattern, tiling
from .extras import Prepared
from .guard import quarantine
from .products import column
from .ring import Consumer, Load, Walk, Work, launch, store
from .running import Running
from .tiling import CONSUMERS, ROWS, SIDE, Tile, blocks_of, div, rem
from .visits import visits


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
        out, top, total = Running(at, work, tile).result()
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
