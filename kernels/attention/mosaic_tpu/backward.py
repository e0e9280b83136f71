"""The backward pass: kernels for the gradients of query, of key and value, and of a bias."""

import math
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._blocks import div, rem
from ..problem import ALiBi, Extras, Setting, row_sums, shape_of
from . import blocks, tiling
from .launch import Pass, Refs, launch
from .schedule import bounds_of, flags, schedule
from .scores import LOG2E, ScoreOperands, dot, finite, score_gradients
from .tiling import Output, Tile


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, interpret: Any = False
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    shape = tiling.tiled(shape_of(q, k, v), blocks.backward(tiling.widest(q, v)))
    delta = row_sums(dout, out) - dlse
    q, k, v, dout = tiling.heads_second(q, k, v, dout)
    empty = lse == -jnp.inf
    lse, delta, dout = (
        jnp.where(empty, 0.0, lse * LOG2E),
        jnp.where(empty, 0.0, delta),
        jnp.where(empty[..., None], 0, dout),
    )
    active, full = bounds_of(extras.mask, shape)
    wide = [tiling.queries(q, shape), tiling.keys(k, shape), tiling.keys(v, shape), tiling.queries(dout, shape)]
    operands = [*wide, tiling.rows(lse, shape), tiling.rows(delta, shape)]
    prepared = ScoreOperands(extras, shape, flip=True)
    work = Pass(shape, setting, extras, prepared, operands, active, full, True, interpret)
    dq = _query_gradient(work)[:, :, : shape.q_seq]
    dk, dv = (x[:, :, : shape.kv_seq] for x in _key_gradients(work))
    grads = tiling.heads_second(dq, dk, dv)
    return (*grads, _bias_gradient(work)) if with_bias else tuple(grads)


def _query_gradient(work: Pass):
    shape, plan = work.shape, schedule(work.active, work.full)

    def where(ids, entries):
        b, h, row, n = ids
        return Tile(b, h, row, plan.column(entries[plan.start(b, h, row) + 1 + n]))

    def kernel(refs: Refs):
        (dq_ref,), (acc,) = refs.outs, refs.scratch
        n, start = refs.ids[3], plan.start(*refs.ids[:3])

        @pl.when(n == 0)
        def _():
            acc[...] = jnp.zeros_like(acc)

        def compute(masked):
            q, k, *rest = refs.load()
            _, ds, _ = score_gradients(refs.scores, refs.tile, masked, q, k, *rest)
            acc[...] += dot(ds.T.astype(k.dtype), finite(k) if masked else k, (1, 0))

        plan.run(n < refs.entries[start], refs.entries[start + 1 + n], lambda: compute(False), lambda _: compute(True))

        @pl.when(n == plan.steps - 1)
        def _():
            dq_ref[0, 0] = (acc[...] * work.setting.scale).astype(dq_ref.dtype)

    q = work.operands[0]
    grid = (shape.batch, shape.heads, shape.q_blocks, plan.steps)
    scratch = [pltpu.VMEM((shape.q_block, q.array.shape[-1]), jnp.float32)]
    outs = [tiling.like(q, q.array.dtype)]
    return launch(work, "backward_q", kernel, where, grid=grid, entries=plan.table, outs=outs, scratch=scratch)[0]


def _key_gradients(work: Pass):
    """A row of blocks is one block of keys here, for all query heads of its group in turn."""
    shape, plan = work.shape, schedule(work.active, work.full, by_keys=True)

    def start_of(ids):
        return plan.start(ids[0], ids[1] * shape.repeat + div(ids[3], plan.steps), ids[2])

    def where(ids, entries):
        b, group, row, n = ids
        return Tile(
            b,
            group * shape.repeat + div(n, plan.steps),
            plan.column(entries[start_of(ids) + 1 + rem(n, plan.steps)]),
            row,
        )

    def kernel(refs: Refs):
        (dk_ref, dv_ref), (dk, dv) = refs.outs, refs.scratch
        n, start = refs.ids[3], start_of(refs.ids)

        @pl.when(n == 0)
        def _():
            dk[...] = jnp.zeros_like(dk)
            dv[...] = jnp.zeros_like(dv)

        def compute(masked):
            q, k, v, dout, *rows = refs.load()
            p, ds, _ = score_gradients(refs.scores, refs.tile, masked, q, k, v, dout, *rows)
            dv[...] += dot(p.astype(dout.dtype), dout, (1, 0))
            dk[...] += dot(ds.astype(q.dtype), finite(q) if masked else q, (1, 0))

        turn = rem(n, plan.steps)
        plan.run(
            turn < refs.entries[start], refs.entries[start + 1 + turn], lambda: compute(False), lambda _: compute(True)
        )

        @pl.when(n == plan.steps * shape.repeat - 1)
        def _():
            dk_ref[0, 0] = (dk[...] * work.setting.scale).astype(dk_ref.dtype)
            dv_ref[0, 0] = dv[...].astype(dv_ref.dtype)

    both = work.operands[1:3]
    grid = (shape.batch, shape.kv_heads, shape.kv_blocks, plan.steps * shape.repeat)
    scratch = [pltpu.VMEM((shape.kv_block, x.array.shape[-1]), jnp.float32) for x in both]
    outs = [tiling.like(x, x.array.dtype) for x in both]
    return launch(work, "backward_kv", kernel, where, grid=grid, entries=plan.table, outs=outs, scratch=scratch)


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
            _, _, ds = score_gradients(refs.scores, tile, masked, *refs.load())
            ds = (ds * -refs.scores.distance(tile) if alibi else ds).T
            dbias[0, 0] += ds if t else ds.sum(0, keepdims=True)

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
