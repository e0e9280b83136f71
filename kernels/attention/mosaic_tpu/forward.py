"""The forward pass: an online softmax over one row of blocks at a time."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._blocks import div
from ..problem import Extras, Setting, shape_of
from . import blocks, short, tiling
from .launch import Pass, Refs, launch
from .schedule import bounds_of, known_bounds, schedule
from .scores import LOW, ScoreOperands, dot, finite, flag, inverse, marks
from .tiling import Output, Tile, Tiled, widen

HEAD_BYTES = 6 << 20
STRAIGHT = 8  # pieces of blocks that need the mask, as in `schedule`


def attend(q, k, v, extras: Extras, setting: Setting, *, interpret: Any = False):
    """(out, logsumexp) as `reference.attend` gives them, by one kernel."""
    if one := short.one_tile(q, k, v, extras):
        return short.attend(q, k, v, extras, setting, one, interpret=interpret)
    most = blocks.forward(tiling.widest(q, v), narrow=extras.narrow)
    shape, stored = tiling.tiled(shape_of(q, k, v), most), tiling.layout(q, v)
    active, full = bounds_of(extras.mask, shape)
    plan = schedule(active, full, known_bounds(extras.mask, shape), STRAIGHT)
    fold = _fold(shape, q.dtype.itemsize) if plan.shape[1] == 1 else 1
    operands = [tiling.queries(q, shape, stored, fold), tiling.keys(k, shape, stored), tiling.keys(v, shape, stored)]
    prepared = ScoreOperands(extras, shape, flip=False)
    work = Pass(shape, stored, setting, extras, prepared, operands, active, full, False, interpret)

    def where(ids, entries):
        b, group, row, n, r = ids
        h = group * fold + r
        return Tile(b, h, row, plan.column(entries[plan.start(b, h, row) + 1 + n]))

    def kernel(refs: Refs):
        n, start = refs.ids[3], plan.start(refs.tile.b, refs.tile.h, refs.tile.q)
        refs = _of_head(refs, refs.ids[4] if fold > 1 else 0)
        pl.when(n == 0)(lambda: _begin(refs))
        groups = lambda first, count: tiling.groups(first, count, most.rows)
        whole = lambda: _step(refs, [(n, groups(0, shape.q_block), False) for n in range(shape.parts)])

        def pieces(some):
            tiles = [(shape.piece(refs.tile, number), masked) for number, masked in some]
            _step(refs, [(t.part, groups(t.rows.start, shape.group), masked) for t, masked in tiles])

        plan.run(n < refs.entries[start], refs.entries[start + 1 + n], whole, pieces)
        pl.when(n == plan.steps - 1)(lambda: _end(refs))

    bq, dim, v_dim, seq = shape.q_block, shape.dim, shape.v_dim, shape.q_blocks * shape.q_block
    head = lambda t: div(t.h, fold)
    out, lse = launch(
        work,
        "forward",
        kernel,
        where,
        grid=(shape.batch, shape.heads // fold, shape.q_blocks, plan.steps, fold),
        entries=plan.table,
        outs=[
            Output(
                stored.shape(shape.batch, seq, shape.heads, v_dim),
                q.dtype,
                stored.block(fold, bq, v_dim),
                lambda t: stored.place(t.b, head(t), t.q),
                wide=True,
            ),
            Output(
                (shape.batch, shape.heads, 1, seq),
                jnp.float32,
                (None, fold, 1, bq),
                lambda t: (t.b, head(t), 0, t.q),
            ),
        ],
        scratch=[
            pltpu.VMEM((fold, bq, dim), q.dtype),
            *(pltpu.VMEM((fold, bq, width), jnp.float32) for width in (tiling.LANES, tiling.LANES, v_dim)),
        ],
        sums=2,
    )
    return stored.load(out, shape.heads, shape.q_seq), lse[:, :, 0, : shape.q_seq]


def _fold(shape: Tiled, itemsize: int) -> int:
    """Query heads of a key head that one copy of a block of keys serves, all of whose sums fit `HEAD_BYTES`."""
    wide = lambda dim: dim + -dim % tiling.LANES
    row = itemsize * (3 * wide(shape.dim) + 2 * wide(shape.v_dim)) + 4 * (2 * tiling.LANES + wide(shape.v_dim))
    fits = lambda n: shape.repeat % n == 0 and n * row * shape.q_block <= HEAD_BYTES
    return max(n for n in range(1, shape.repeat + 1) if n == 1 or fits(n))


def _of_head(refs: Refs, at) -> Refs:
    """The references with query, results and scratch memory of one head."""
    (query, k, v), (out, lse), shape, stored = refs.operands, refs.outs, refs.scores.shape, refs.layout
    query, out = stored.head(query, at, shape.dim), stored.head(out, at, shape.v_dim)
    k, v = stored.head(k, 0, shape.dim), stored.head(v, 0, shape.v_dim)
    return dataclasses.replace(
        refs, operands=[query, k, v], outs=[out, lse.at[at]], scratch=[ref.at[at] for ref in refs.scratch]
    )


def _guarded(refs: Refs) -> bool:
    """True if some query does not see some key: then a number that is not finite makes NaN of the rows that see it, in
    all their features, and of no others.
    """
    return refs.scores.prepared.mask is not None


def _begin(refs: Refs):
    query, top, total, acc = refs.scratch
    if _guarded(refs):
        query[...] = flag(refs.operands[0][...])
    top[...] = jnp.full_like(top, LOW)
    total[...] = jnp.zeros_like(total)
    acc[...] = jnp.zeros_like(acc)


def _step(refs: Refs, work: Sequence[tuple[Any, Sequence[Any], bool]]):
    """Each part of the keys against groups of queries, with the mask or without; the product of the next pair is issued
    ahead of the softmax of this one.
    """
    query, top, total, acc = refs.scratch
    query = query if _guarded(refs) else refs.operands[0]
    pairs = [(n, rows) for n, (_, groups, _) in enumerate(work) for rows in groups]

    @functools.cache
    def load(n: int):
        part, _, masked = work[n]
        k, v = (ref[refs.scores.shape.keys(part)] for ref in refs.operands[1:])
        if not _guarded(refs):
            return k, v, None
        return (k, finite(v), marks(k, v)) if masked else (flag(k), v, marks(v))

    def product(n: int, rows: Any):
        k, v, marked = load(n)
        return dot(query[rows], k, (1, 1)), v, marked

    ahead: Any = product(*pairs[0])
    for pair, after in zip(pairs, [*pairs[1:], None]):
        (s, v, marked), ahead = ahead, product(*after) if after else (None, None, None)
        part, _, masked = work[pair[0]]
        tile = dataclasses.replace(refs.tile, part=part, rows=pair[1])
        p, shrink, top[tile.rows], total[tile.rows] = _softmax(
            refs, tile, s, marked, top[tile.rows], total[tile.rows], masked
        )
        acc[tile.rows] = acc[tile.rows] * widen(shrink, acc.shape[1]) + dot(p.astype(v.dtype), v, (1, 0))


def _softmax(refs: Refs, tile: Tile, s, marked, top, total, masked: bool):
    """(weights, factor of earlier weights, maximum, sums by lane) after one more part.

    The maximum is finite, so that a masked logit of minus infinity has the weight 0.
    """
    scores = refs.scores
    s, _ = scores.logits(s, tile)
    if masked:
        s = scores.masked(s, marked, tile)
    now = jnp.maximum(top, jnp.max(s, axis=1, keepdims=True))
    p = jnp.exp2(s - widen(now, s.shape[1]))
    shrink = jnp.exp2(top - now)
    lanes = [slice(at, at + tiling.LANES) for at in range(0, p.shape[1], tiling.LANES)]
    total = shrink * total + sum(p[:, some] for some in lanes)
    if marked is not None and not masked:
        # All queries of a block without a mask see all its keys.
        total = total + sum(marked[:, some] for some in lanes)
    return scores.dropped(p, tile), shrink, now, total


def _end(refs: Refs):
    (out, lse), (_, top, total, acc) = refs.outs, refs.scratch
    total = jnp.broadcast_to(jnp.sum(total[...], axis=1, keepdims=True), total.shape)
    empty = total == 0.0
    safe = jnp.where(empty, 1.0, total)
    result = acc[...] * widen(inverse(safe, out.dtype), acc.shape[1])
    out[...] = result.astype(out.dtype)
    top, total = tiling.along_lanes(top[...]), tiling.along_lanes(total)
    lse[...] = jnp.where(total == 0.0, -jnp.inf, top * math.log(2.0) + jnp.log(total))
