"""The backward pass: a kernel for the gradients of query, key and value, and one for that of a bias."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._blocks import div, parts, rem
from ..problem import ALiBi, Extras, Setting, row_sums, shape_of
from . import blocks, tiling
from .launch import Pass, Refs, launch
from .schedule import bounds_of, by_keys, flags, schedule
from .scores import LOG2E, ScoreOperands, dot, finite, score_gradients
from .tiling import Output, Tile, Tiled

# Bytes of the query's gradient that vector memory holds at a time.
MOST_BYTES = 32 << 20


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, interpret: Any = False
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
    dq, dk, dv = _gradients(work)
    grads = tiling.heads_second(dq[:, :, : shape.q_seq], dk[:, :, : shape.kv_seq], dv[:, :, : shape.kv_seq])
    return (*grads, _bias_gradient(work)) if with_bias else tuple(grads)


def _gradients(work: Pass):
    """One kernel for the gradients of q, k and v.

    A row is a block of keys, whose sums are in scratch memory. The query's gradient of a span of queries, for the heads
    of a chunk, is the kernel's block of results while the grid goes through all keys, so that each is added in place.
    """
    shape, (fold, spans) = work.shape, _chunks(work.shape)
    plan = schedule(by_keys(work.active, spans), by_keys(work.full, spans))
    per = parts(shape.q_blocks, spans)
    q, k, v = work.operands[:3]

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
            keys, (q, k, v, dout, *rows) = _keys(shape, part), _load(refs, part)
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


def _keys(shape: Tiled, part):
    return pl.ds(part * shape.part, shape.part)


def _load(refs: Refs, part):
    """The operands of one part of a tile."""
    q, k, v, *rest = refs.operands
    keys = _keys(refs.scores.shape, part)
    return q[0, 0], k[0, 0, keys], v[0, 0, keys], *(ref[0, 0] for ref in rest)


def _clear(ref):
    ref[...] = jnp.zeros(ref.shape, ref.dtype)


def _chunks(shape: Tiled) -> tuple[int, int]:
    """Query heads of a key head, and spans of their queries, whose gradient is summed in vector memory at a time."""
    row = shape.q_block * (shape.dim + -shape.dim % tiling.LANES) * 4
    most = max(1, MOST_BYTES // row)
    fold = max(
        n for n in range(1, shape.repeat + 1) if shape.repeat % n == 0 and (n == 1 or n * shape.q_blocks <= most)
    )
    return fold, parts(shape.q_blocks, most) if fold == 1 else 1


def _bias_gradient(work: Pass):
    """The gradient of the bias in its own shape, or of ALiBi's slopes. Each block sums all tiles that read it."""
    shape, bias = work.shape, work.extras.bias
    alibi = isinstance(bias, ALiBi)
    size = (*bias.slopes.shape, 1, 1) if alibi else bias.shape
    b, h, t, s = (n > 1 for n in size)
    # The examples, heads, blocks of queries and blocks of keys that share one block of the bias.
    shared = (
        shape.batch // size[0],
        shape.heads // size[1],
        1 if t else shape.q_blocks,
        1 if s else shape.kv_blocks,
    )
    own = (size[0], size[1], shape.q_blocks if t else 1, shape.kv_blocks if s else 1)
    table = flags(work.active, work.full)

    def where(ids, entries):
        bi, hi, qi, ki, n = ids
        n, dk = div(n, shared[3]), rem(n, shared[3])
        n, dq = div(n, shared[2]), rem(n, shared[2])
        db, dh = div(n, shared[1]), rem(n, shared[1])
        return Tile(bi if b else db, hi if h else dh, qi + dq, ki + dk)

    def kernel(refs: Refs):
        (dbias,), tile = refs.outs, refs.tile

        @pl.when(refs.ids[4] == 0)
        def _():
            dbias[...] = jnp.zeros_like(dbias)

        def compute(masked):
            for part in range(shape.parts):
                at = dataclasses.replace(tile, part=part)
                _, _, ds = score_gradients(refs.scores, at, masked, *_load(refs, part))
                ds = (ds * -refs.scores.distance(at) if alibi else ds).T
                dbias[0, 0, :, _keys(shape, part)] += ds if t else ds.sum(0, keepdims=True)

        examples, heads, rows, columns = table.shape
        row = ((tile.b if examples > 1 else 0) * heads + (tile.h if heads > 1 else 0)) * rows + tile.q
        flag = refs.entries[row * columns + tile.k]
        pl.when(flag == 1)(lambda: compute(True))
        pl.when(flag == 2)(lambda: compute(False))

    block = (1, 1, shape.q_block if t else 1, shape.kv_block)
    place = lambda tile: (tile.b if b else 0, tile.h if h else 0, tile.q if t else 0, tile.k if s else 0)
    whole = (*own[:2], *(count * side for count, side in zip(own[2:], block[2:])))
    out = Output(whole, jnp.float32, block, place)
    grid = (*own, math.prod(shared))
    dbias = launch(work, "backward_bias", kernel, where, grid=grid, entries=jnp.asarray(table), outs=[out], scratch=[])[
        0
    ]
    dbias = dbias[:, :, : size[2], : size[3]] if s else dbias[:, :, : size[2]].sum(3, keepdims=True)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if alibi else dbias.astype(bias.dtype)
