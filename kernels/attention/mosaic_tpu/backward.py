"""The backward pass: what its kernels share, and those of query, key and value."""

from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import blocks
from ..problem import Extras, Setting
from . import tiling
from .bias_gradient import bias_gradient
from .extras import Prepared
from .launch import Pass, Refs, launch
from .tile_math import dot, finite, gradients, quarantine
from .tiling import Tile, div, rem
from .visits import visit, visits


def backward(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, interpret: Any = False
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    shape = tiling.shape_of(q, k, v, tiling.BACKWARD_BLOCK)
    q, k, v, out, dout = tiling.heads_second(q, k, v, out, dout)
    delta = jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), -1) - dlse
    empty = lse == -jnp.inf
    lse, delta, dout = jnp.where(empty, 0.0, lse), jnp.where(empty, 0.0, delta), jnp.where(empty[..., None], 0, dout)
    q, k, v = quarantine(q, k, v, extras.mask is not None)
    some, every = blocks.spread(extras.mask, shape.q_seq, shape.kv_seq, shape.q_block, shape.kv_block)
    wide = [tiling.queries(q, shape), tiling.keys(k, shape), tiling.keys(v, shape), tiling.queries(dout, shape)]
    operands = [*wide, tiling.rows(lse, shape), tiling.rows(delta, shape)]
    work = Pass(shape, setting, extras, Prepared(extras, shape, flip=True), operands, some, every, True, interpret)
    dq = _query_gradient(work)[:, :, : shape.q_seq]
    dk, dv = (x[:, :, : shape.kv_seq] for x in _key_gradients(work))
    grads = tiling.heads_second(dq, dk, dv)
    return (*grads, bias_gradient(work)) if with_bias else tuple(grads)


def _query_gradient(work: Pass):
    shape, plan = work.shape, visits(work.some, work.every)
    guarded = work.extras.mask is not None

    def where(ids, entries):
        b, h, row, n = ids
        return Tile(b, h, row, entries[plan.start(b, h, row) + 1 + n] >> 1)

    def kernel(refs: Refs):
        (dq_ref,), (acc,) = refs.outs, refs.scratch
        n, start = refs.ids[3], plan.start(*refs.ids[:3])

        @pl.when(n == 0)
        def _():
            acc[...] = jnp.zeros_like(acc)

        def step(masked):
            q, k, *rest = refs.load()
            _, ds, _ = gradients(refs.reader, refs.tile, masked, q, k, *rest)
            acc[...] += dot(ds.T.astype(k.dtype), finite(k, guarded), (1, 0))

        visit(step, n < refs.entries[start], refs.entries[start + 1 + n])

        @pl.when(n == plan.steps - 1)
        def _():
            dq_ref[0, 0] = (acc[...] * work.setting.scale).astype(dq_ref.dtype)

    q = work.operands[0]
    grid = (shape.batch, shape.heads, shape.q_blocks, plan.steps)
    scratch = [pltpu.VMEM((shape.q_block, q.array.shape[-1]), jnp.float32)]
    outs = [tiling.like(q, q.array.dtype)]
    return launch(work, "backward_q", kernel, where, grid=grid, entries=plan.table, outs=outs, scratch=scratch)[0]


def _key_gradients(work: Pass):
    """A row of blocks here is one block of keys, which all query heads of its group visit in turn."""
    shape, plan = work.shape, visits(work.some.swapaxes(2, 3), work.every.swapaxes(2, 3))
    guarded = work.extras.mask is not None

    def start_of(ids):
        return plan.start(ids[0], ids[1] * shape.repeat + div(ids[3], plan.steps), ids[2])

    def where(ids, entries):
        b, group, row, n = ids
        return Tile(
            b, group * shape.repeat + div(n, plan.steps), entries[start_of(ids) + 1 + rem(n, plan.steps)] >> 1, row
        )

    def kernel(refs: Refs):
        (dk_ref, dv_ref), (dk, dv) = refs.outs, refs.scratch
        n, start = refs.ids[3], start_of(refs.ids)

        @pl.when(n == 0)
        def _():
            dk[...] = jnp.zeros_like(dk)
            dv[...] = jnp.zeros_like(dv)

        def step(masked):
            q, k, v, dout, *rows = refs.load()
            p, ds, _ = gradients(refs.reader, refs.tile, masked, q, k, v, dout, *rows)
            dv[...] += dot(p.astype(dout.dtype), dout, (1, 0))
            dk[...] += dot(ds.astype(q.dtype), finite(q, guarded), (1, 0))

        turn = rem(n, plan.steps)
        visit(step, turn < refs.entries[start], refs.entries[start + 1 + turn])

        @pl.when(n == plan.steps * shape.repeat - 1)
        def _():
            dk_ref[0, 0] = (dk[...] * work.setting.scale).astype(dk_ref.dtype)
            dv_ref[0, 0] = dv[...].astype(dv_ref.dtype)

    both = work.operands[1:3]
    grid = (shape.batch, shape.kv_heads, shape.kv_blocks, plan.steps * shape.repeat)
    scratch = [pltpu.VMEM((shape.kv_block, x.array.shape[-1]), jnp.float32) for x in both]
    outs = [tiling.like(x, x.array.dtype) for x in both]
    return launch(work, "backward_kv", kernel, where, grid=grid, entries=plan.table, outs=outs, scratch=scratch)
