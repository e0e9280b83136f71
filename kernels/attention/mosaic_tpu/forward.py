"""The forward pass: an online softmax over one row of blocks at a time."""

from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..problem import Extras, Setting, quarantine, shape_of
from ..schedule import bounds_of
from . import tiling
from .launch import Pass, Refs, launch
from .schedule import schedule, step
from .scores import LOW, ScoreOperands, dot
from .tiling import Output, Tile


def attend(q, k, v, extras: Extras, setting: Setting, *, interpret: Any = False):
    """(out, logsumexp) as `reference.attend` gives them, by one kernel."""
    shape = tiling.tiled(shape_of(q, k, v), q.dtype, tiling.FORWARD_BLOCK)
    q, k, v = tiling.heads_second(*quarantine(q, k, v, extras))
    active, full = bounds_of(extras.mask, shape)
    operands = [tiling.queries(q, shape), tiling.keys(k, shape), tiling.keys(v, shape)]
    prepared = ScoreOperands(extras, shape, flip=False)
    work = Pass(shape, setting, extras, prepared, operands, active, full, False, interpret)
    plan = schedule(active, full)

    def where(ids, entries):
        b, h, row, n = ids
        return Tile(b, h, row, entries[plan.start(b, h, row) + 1 + n] >> 1)

    def kernel(refs: Refs):
        n, start = refs.ids[3], plan.start(*refs.ids[:3])
        pl.when(n == 0)(lambda: _begin(*refs.scratch))
        step(lambda masked: _step(refs, masked), n < refs.entries[start], refs.entries[start + 1 + n])
        pl.when(n == plan.steps - 1)(lambda: _end(*refs.outs, *refs.scratch))

    bq, v_dim, seq = shape.q_block, v.shape[-1], shape.q_blocks * shape.q_block
    out, lse = launch(
        work,
        "forward",
        kernel,
        where,
        grid=(shape.batch, shape.heads, shape.q_blocks, plan.steps),
        entries=plan.table,
        outs=[
            Output((*q.shape[:2], seq, v_dim), q.dtype, (1, 1, bq, v_dim), lambda t: (t.b, t.h, t.q, 0)),
            Output((*q.shape[:2], 1, seq), jnp.float32, (1, 1, 1, bq), lambda t: (t.b, t.h, 0, t.q)),
        ],
        scratch=[pltpu.VMEM((bq, width), jnp.float32) for width in (tiling.LANES, tiling.LANES, v_dim)],
    )
    (out,) = tiling.heads_second(out[:, :, : shape.q_seq])
    return out, lse[:, :, 0, : shape.q_seq]


def _begin(top, total, acc):
    top[...] = jnp.full_like(top, LOW)
    total[...] = jnp.zeros_like(total)
    acc[...] = jnp.zeros_like(acc)


def _step(refs: Refs, masked: bool):
    scores, (top, total, acc), (q, k, v) = refs.scores, refs.scratch, refs.load()
    s, _, allowed = scores.logits(dot(q, k, (1, 1)) * scores.setting.scale, refs.tile, masked)
    before = top[:, :1]
    now = jnp.maximum(before, jnp.max(s, axis=1, keepdims=True))
    p = jnp.exp(s - now)
    if allowed is not None:
        p = jnp.where(allowed, p, 0.0)
    shrink = jnp.exp(before - now)
    total[...] = jnp.broadcast_to(shrink * total[:, :1] + jnp.sum(p, axis=1, keepdims=True), total.shape)
    top[...] = jnp.broadcast_to(now, top.shape)
    kept = scores.kept(refs.tile)
    if kept is not None:
        p = jnp.where(kept, p * (1.0 / (1.0 - scores.setting.dropout_rate)), 0.0)
    acc[...] = acc[...] * shrink + dot(p.astype(v.dtype), v, (1, 0))


def _end(out, lse, top, total, acc):
    empty = total[...] == 0.0
    safe = jnp.where(empty, 1.0, total[...])
    out[0, 0] = (acc[...] / safe[:, :1]).astype(out.dtype)
    lse[0, 0] = jnp.where(empty, -jnp.inf, top[...] + jnp.log(safe)).T[:1]
