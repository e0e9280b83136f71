"""The backward pass: a kernel for the gradients of query, key and value, and one for that of a bias."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._blocks import div, parts, rem
from ..problem import Extras, Setting, row_sums, shape_of
from . import blocks, short, tiling
from .bias import bias_gradient
from .launch import Pass, Refs, launch
from .schedule import bounds_of, by_keys, known_bounds, schedule
from .scores import LOG2E, ScoreOperands, dot, finite, score_gradients
from .tiling import Output, Tile, Tiled

UNROLLED = 2  # parts of a tile without a mask whose products follow one another in one straight program


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, kind: str, interpret: Any
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    delta, empty = row_sums(dout, out) - dlse, lse == -jnp.inf
    lse, delta = jnp.where(empty, 0.0, lse * LOG2E), jnp.where(empty, 0.0, delta)
    one = short.one_tile(q, k, v, extras, whole_groups=True)
    grads = one and short.gradients(q, k, v, extras, setting, dout, (lse, delta), one, interpret=interpret)
    if grads and not with_bias:
        return grads
    most = blocks.backward(tiling.widest(q, v), kind, plain=extras.plain, masked=extras.mask is not None)
    shape, stored = tiling.tiled(shape_of(q, k, v), most), tiling.layout(q, v)
    active, full = bounds_of(extras.mask, shape)
    wide = [tiling.queries(x, shape, stored) for x in (q, dout)]
    wide[1:1] = [tiling.keys(x, shape, stored) for x in (k, v)]
    operands = [*wide, tiling.rows(shape, lse, delta)]
    prepared = ScoreOperands(extras, shape, flip=True)
    work = Pass(shape, stored, setting, extras, prepared, operands, active, full, True, interpret)
    if not grads:
        grads = _gradients(work, q.dtype, tiling.divisor(shape.q_block, most.rows), blocks.sum_bytes(kind))
    return (*grads, bias_gradient(work)) if with_bias else tuple(grads)


def _gradients(work: Pass, dtype, group_rows: int, most: int):
    """One kernel for the gradients of q, k and v.

    A row is a block of keys, whose sums are in scratch memory. So is the query's gradient of a span of queries, for the
    heads of a chunk, while the grid goes through all keys.
    """
    shape, stored = work.shape, work.layout
    fold, spans = _chunks(shape, most, 4 + dtype.itemsize)
    outer = (by_keys(x, spans) for x in known_bounds(work.extras.mask, shape))
    plan = schedule(by_keys(work.active, spans), by_keys(work.full, spans), tuple(outer))
    per, unrolled = parts(shape.q_blocks, spans), math.gcd(shape.parts, UNROLLED)
    turns_of_group = shape.parts // unrolled
    # Where all tiles are computed, and whole, the first products begin the query's sums, and none is cleared.
    cleared = work.extras.mask is not None or plan.partial

    # Scalar divisions of each operand's index would take a third of a step, and are left out where they are known.
    lap = lambda n: div(n, plan.steps) if fold > 1 else 0
    turn_of = lambda n: rem(n, plan.steps) if fold > 1 else n
    span_of = lambda column: div(column, per) if spans > 1 else 0

    def start_of(ids):
        b, chunk, row, n = ids
        return plan.start(b, head(chunk, n), rem(chunk, spans) * shape.kv_blocks + row)

    def head(chunk, n):
        return div(chunk, spans) * fold + lap(n)

    def where(ids, entries):
        b, chunk, row, n = ids
        column = plan.column(entries[start_of(ids) + 1 + turn_of(n)])
        return Tile(b, head(chunk, n), rem(chunk, spans) * per + column, row)

    def kernel(refs: Refs):
        (dq_ref, dk_ref, dv_ref), (dq, dk, dv) = refs.outs, refs.scratch
        chunk, row, n = refs.ids[1:]
        at, start = lap(n), start_of(refs.ids)
        column = refs.tile.q - rem(chunk, spans) * per
        block = lambda column: pl.ds(column * shape.q_block, shape.q_block)
        turns = lambda do: jax.lax.fori_loop(0, fold * per, lambda i, _: do(div(i, per), block(rem(i, per))), None)

        if cleared:

            @pl.when((row == 0) & (n == 0))
            def _():
                turns(lambda head, rows: _clear(dq.at[head, rows]))

        def compute(tile, masked, first_of_keys=False, first_of_queries=False):
            keys, (q, k, v, dout, *rows) = shape.keys(tile.part), refs.load(tile)
            q, k, v, dout = (tiling.whole_lanes(x) for x in (q, k, v, dout))
            # A row that sees no key may have any cotangent; of others, delta is NaN where one is not finite.
            dout = finite(dout) if masked else dout
            products = dot(k, q, (1, 1)), dot(v, dout, (1, 1))
            p, ds, _ = score_gradients(refs.scores, tile, masked, *products, *rows)
            ds = ds.astype(q.dtype)
            queries = at, pl.ds(column * shape.q_block + tile.rows.start, tile.rows.size)
            _add(dv, keys, dot(p.astype(dout.dtype), dout, (1, 0)), first_of_keys)
            _add(dk, keys, dot(ds, finite(q) if masked else q, (1, 0)), first_of_keys)
            _add(dq, queries, dot(ds, finite(k) if masked else k, (0, 0)), first_of_queries)

        def some(turn, _):
            group, first = div(turn, turns_of_group), rem(turn, turns_of_group) * unrolled
            for part in range(unrolled):
                rows = pl.ds(group * group_rows, group_rows)
                tile = dataclasses.replace(refs.tile, part=first + part, rows=rows)
                compute(tile, False, (n == 0) & (group == 0), not cleared and (row == 0) & (first + part == 0))

        whole = lambda: jax.lax.fori_loop(0, turns_of_group * (shape.q_block // group_rows), some, None)

        turn = turn_of(n)

        inside, entry = turn < refs.entries[start], refs.entries[start + 1 + turn]

        def pieces(some):
            for number, masked in some:
                tile = shape.piece(refs.tile, number)
                before = plan.active(entry, shape.pieces_of(tile.part)) & ((1 << number) - 1)
                compute(tile, masked, (n == 0) & (before == 0))

        plan.run(inside, entry, whole, pieces)
        if cleared:
            for part in range(shape.parts):

                @pl.when((n == 0) & ~(inside & (plan.active(entry, shape.pieces_of(part)) != 0)))
                def _(part=part):
                    _clear(dk.at[shape.keys(part)])
                    _clear(dv.at[shape.keys(part)])

        @pl.when(n == plan.steps * fold - 1)
        def _():
            stored.head(dk_ref, 0, shape.dim)[...] = (dk[:, : shape.dim] * work.setting.scale).astype(dk_ref.dtype)
            stored.head(dv_ref, 0, shape.v_dim)[...] = dv[:, : shape.v_dim].astype(dv_ref.dtype)

        @pl.when((row == shape.kv_blocks - 1) & (n == plan.steps * fold - 1))
        def _():
            def store(head, rows):
                total = dq[head, rows, : shape.dim] * work.setting.scale
                stored.head(dq_ref, head, shape.dim)[rows] = total.astype(dtype)

            turns(store)

    chunks, seq = shape.heads // fold * spans, per * shape.q_block
    each = chunks // shape.kv_heads
    summed = dtype if each == 1 else jnp.float32
    both = [
        Output(
            stored.shape(shape.batch, shape.kv_blocks * shape.kv_block, chunks, dim),
            summed,
            stored.block(1, shape.kv_block, dim),
            lambda t: stored.place(t.b, div(t.h, fold) * spans + span_of(t.q), t.k),
            wide=True,
        )
        for dim in (shape.dim, shape.v_dim)
    ]
    dq = Output(
        stored.shape(shape.batch, spans * seq, shape.heads, shape.dim),
        dtype,
        stored.block(fold, seq, shape.dim),
        lambda t: stored.place(t.b, div(t.h, fold), span_of(t.q)),
        once=True,
        wide=True,
    )
    dim, v_dim = (x + -x % tiling.LANES for x in (shape.dim, shape.v_dim))
    sides = (fold, seq, dim), (shape.kv_block, dim), (shape.kv_block, v_dim)
    dq, *both = launch(
        work,
        "backward",
        kernel,
        where,
        grid=(shape.batch, chunks, shape.kv_blocks, plan.steps * fold),
        entries=plan.table,
        outs=[dq, *both],
        scratch=[pltpu.VMEM(side, jnp.float32) for side in sides],
        sums=2,
    )
    both = (stored.summed(x, shape.kv_heads, each).astype(dtype) for x in both)
    both = (stored.load(x, shape.kv_heads, shape.kv_seq) for x in both)
    return stored.load(dq, shape.heads, shape.q_seq), *both


def _add(ref, at, value, first):
    """Add to a sum, or begin it."""
    ref[at] = ref[at] + value if first is False else jnp.where(first, value, ref[at] + value)


def _clear(ref):
    ref[...] = jnp.zeros(ref.shape, ref.dtype)


def _chunks(shape: Tiled, most: int, each: int) -> tuple[int, int]:
    """Query heads of a key head, and spans of their queries, whose gradient of `each` bytes a number takes at most
    `most`.
    """
    rows = max(1, most // (shape.q_block * (shape.dim + -shape.dim % tiling.LANES) * each))
    fits = lambda n: shape.repeat % n == 0 and (n == 1 or n * shape.q_blocks <= rows)
    fold = max(n for n in range(1, shape.repeat + 1) if fits(n))
    per = parts(shape.q_blocks, parts(shape.q_blocks, rows) if fold == 1 else 1)
    return fold, parts(shape.q_blocks, per)
