"""The backward pass: a kernel for the gradients of query, key and value, and one for that of a bias."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._blocks import div, parts, rem
from ..problem import Extras, Setting, row_sums, shape_of
from . import blocks, tiling
from .bias import bias_gradient
from .launch import Pass, Refs, launch
from .schedule import bounds_of, by_keys, schedule
from .scores import LOG2E, ScoreOperands, dot, finite, score_gradients
from .tiling import Output, Tile, Tiled


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, kind: str, interpret: Any
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    shape = tiling.tiled(shape_of(q, k, v), blocks.backward(tiling.widest(q, v)))
    delta = row_sums(dout, out) - dlse
    q, k, v, dout = tiling.heads_second(q, k, v, dout)
    empty = lse == -jnp.inf
    lse, delta = jnp.where(empty, 0.0, lse * LOG2E), jnp.where(empty, 0.0, delta)
    dout = jnp.where(empty[..., None], 0, dout)
    active, full = bounds_of(extras.mask, shape)
    wide = [tiling.queries(q, shape), tiling.keys(k, shape), tiling.keys(v, shape), tiling.queries(dout, shape)]
    operands = [*wide, tiling.rows(lse, shape), tiling.rows(delta, shape)]
    prepared = ScoreOperands(extras, shape, flip=True)
    work = Pass(shape, setting, extras, prepared, operands, active, full, True, interpret)
    dq, dk, dv = _gradients(work, blocks.sum_bytes(kind))
    grads = tiling.heads_second(dq[:, :, : shape.q_seq], dk[:, :, : shape.kv_seq], dv[:, :, : shape.kv_seq])
    return (*grads, bias_gradient(work)) if with_bias else tuple(grads)


def _gradients(work: Pass, most: int):
    """One kernel for the gradients of q, k and v.

    A row is a block of keys, whose sums are in scratch memory. The query's gradient of a span of queries, for the heads
    of a chunk, is the kernel's block of results while the grid goes through all keys, so that each is added in place.
    """
    shape, (fold, spans) = work.shape, _chunks(work.shape, most)
    plan = schedule(by_keys(work.active, spans), by_keys(work.full, spans))
    per = parts(shape.q_blocks, spans)
    operands: Any = work.operands[:3]
    q, k, v = operands

    def start_of(ids):
        b, chunk, row, n = ids
        return plan.start(b, head(chunk, n), rem(chunk, spans) * shape.kv_blocks + row)

    def head(chunk, n):
        return div(chunk, spans) * fold + div(n, plan.steps)

    def where(ids, entries):
        b, chunk, row, n = ids
        column = plan.column(entries[start_of(ids) + 1 + rem(n, plan.steps)])
        return Tile(b, head(chunk, n), rem(chunk, spans) * per + column, row)

    def kernel(refs: Refs):
        (dq, dk_ref, dv_ref), (dk, dv) = refs.outs, refs.scratch
        chunk, row, n = refs.ids[1:]
        at, start = div(n, plan.steps), start_of(refs.ids)
        column = refs.tile.q - rem(chunk, spans) * per
        block = lambda column: pl.ds(column * shape.q_block, shape.q_block)

        @pl.when((row == 0) & (n == 0))
        def _():
            jax.lax.fori_loop(0, fold * per, lambda i, _: _clear(dq.at[0, div(i, per), block(rem(i, per))]), None)

        @pl.when(n == 0)
        def _():
            _clear(dk)
            _clear(dv)

        def compute(part, masked):
            keys, (q, k, v, dout, *rows) = shape.keys(part), refs.load(part)
            tile = dataclasses.replace(refs.tile, part=part)
            p, ds, _ = score_gradients(refs.scores, tile, masked, q, k, v, dout, *rows)
            ds = ds.astype(q.dtype)
            dv[keys] += dot(p.astype(dout.dtype), dout, (1, 0))
            dk[keys] += dot(ds, finite(q) if masked else q, (1, 0))
            dq[0, at, block(column)] += dot(ds, finite(k) if masked else k, (0, 0))

        turn = rem(n, plan.steps)
        whole = lambda: [compute(part, False) for part in range(shape.parts)][-1]
        plan.run(turn < refs.entries[start], refs.entries[start + 1 + turn], whole, lambda part: compute(part, True))

        @pl.when(n == plan.steps * fold - 1)
        def _():
            dk_ref[0, 0] = (dk[...] * work.setting.scale).astype(dk_ref.dtype)
            dv_ref[0, 0] = dv[...].astype(dv_ref.dtype)

    chunks = shape.heads // fold * spans
    each = chunks // shape.kv_heads
    place = lambda t: (t.b, div(t.h, fold) * spans + div(t.q, per), t.k, 0)
    wide = lambda x: (shape.batch, chunks, *x.array.shape[2:])
    outs = [
        Output(
            (shape.batch, shape.heads, spans * per * shape.q_block, shape.dim),
            jnp.float32,
            (1, fold, per * shape.q_block, shape.dim),
            lambda t: (t.b, div(t.h, fold), div(t.q, per), 0),
            once=True,
        ),
        *(Output(wide(x), x.array.dtype if each == 1 else jnp.float32, x.block, place) for x in (k, v)),
    ]
    grid = (shape.batch, chunks, shape.kv_blocks, plan.steps * fold)
    scratch = [pltpu.VMEM(x.block[2:], jnp.float32) for x in (k, v)]
    dq, *both = launch(
        work, "backward", kernel, where, grid=grid, entries=plan.table, outs=outs, scratch=scratch, sums=2
    )
    dk, dv = (x.reshape(shape.batch, -1, each, *x.shape[2:]).sum(2).astype(k.array.dtype) for x in both)
    return (dq * work.setting.scale).astype(q.array.dtype), dk, dv


def _clear(ref):
    ref[...] = jnp.zeros(ref.shape, ref.dtype)


def _chunks(shape: Tiled, most: int) -> tuple[int, int]:
    """Query heads of a key head, and spans of their queries, whose gradient is summed in `most` bytes at a time."""
    rows = max(1, most // (shape.q_block * (shape.dim + -shape.dim % tiling.LANES) * 4))
    fits = lambda n: shape.repeat % n == 0 and (n == 1 or n * shape.q_blocks <= rows)
    fold = max(n for n in range(1, shape.repeat + 1) if fits(n))
    per = parts(shape.q_blocks, parts(shape.q_blocks, rows) if fold == 1 else 1)
    return fold, parts(shape.q_blocks, per)
