"""The forward kernel in Triton: an online softmax for one block of one head's queries over its active blocks of keys.

Full blocks come first, without the mask, then partial ones. Importing this module needs triton.
"""

# Without the package triton a type checker takes this folder for it.
# pyright: reportAttributeAccessIssue=false

from typing import no_type_check

import triton
import triton.language as tl

from .scores import LOG2E, allowed, column_of, finite, kept, logits, nan_rows, put_rows, rows_of

LOW = tl.constexpr(-2.0e38)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
@no_type_check
def forward(
    q, k, v, bias, slopes, offsets, seeds, table, dense, entries, out, lse,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, PLAN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    rows: tl.constexpr = (SIZES[2] + BLOCK_Q - 1) // BLOCK_Q
    heads: tl.constexpr = SIZES[0]
    # The last queries of a causal mask have the most keys: they start first.
    row = rows - 1 - tl.program_id(0) % rows
    head = tl.program_id(0) // rows % heads
    batch = tl.program_id(0) // (rows * heads)
    q_start = (batch.to(tl.int64) * SIZES[2] * heads + head) * SIZES[4]
    out_start = (batch.to(tl.int64) * SIZES[2] * heads + head) * SIZES[5]
    group = batch.to(tl.int64) * SIZES[3] * (heads // SIZES[1]) + head // SIZES[1]
    i = row * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q_tile = rows_of(q, q_start, i, SIZES[2], heads * SIZES[4], SIZES[4], BLOCK_DIM)
    top = tl.full([BLOCK_Q], LOW, tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)

    start = (batch * PLAN[1] + head * PLAN[2] + row) * PLAN[3]
    filled, first = tl.load(entries + start), tl.load(entries + start + 1)
    cut, first_cut = tl.load(entries + start + 2), tl.load(entries + start + 3)
    for n in tl.range(0, filled):
        column = column_of(entries, start, n, filled, first, PLAN[0] == 1, False)
        top, total, acc = _step(
            top, total, acc, q_tile, k, v, bias, slopes, offsets, seeds, table, dense, i, column, batch, head, group,
            SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, PRECISION, False, BLOCK_K, BLOCK_DIM, BLOCK_V,
        )  # fmt: skip
    for n in tl.range(0, cut):
        column = column_of(entries, start, n, filled, first_cut, PLAN[0] == 1, True)
        top, total, acc = _step(
            top, total, acc, q_tile, k, v, bias, slopes, offsets, seeds, table, dense, i, column, batch, head, group,
            SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, PRECISION, True, BLOCK_K, BLOCK_DIM, BLOCK_V,
        )  # fmt: skip

    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    acc = acc / total[:, None]
    if len(TERMS) > 0:
        # A row with an infinite sum becomes NaN.
        acc += nan_rows(acc, 1)[:, None]
    put_rows(out, out_start, i, acc, SIZES[2], heads * SIZES[5], SIZES[5], BLOCK_V)
    tl.store(
        lse + (batch * heads + head) * SIZES[2] + i,
        tl.where(empty, float("-inf"), (top + tl.log2(total)) * LN2),
        mask=i < SIZES[2],
    )


@triton.jit
@no_type_check
def _step(
    top, total, acc, q_tile, k, v, bias, slopes, offsets, seeds, table, dense, i, column, batch, head, group,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    groups: tl.constexpr = SIZES[0] // SIZES[1]
    plain: tl.constexpr = (SOFT_CAP == 0.0) & (BIAS[0] == 0) & (ALIBI[0] == 0)
    j = column * BLOCK_K + tl.arange(0, BLOCK_K)
    k_tile = rows_of(k, group * SIZES[4], j, SIZES[3], groups * SIZES[4], SIZES[4], BLOCK_DIM)
    v_tile = rows_of(v, group * SIZES[5], j, SIZES[3], groups * SIZES[5], SIZES[5], BLOCK_V)
    s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
    if MASKED and len(TERMS) > 0:
        s = s + (s - s) + nan_rows(v_tile, 1)[None, :]
        v_tile = finite(v_tile)
    if not plain:
        s, _ = logits(
            s, i[:, None], j[None, :], batch, head, bias, slopes, offsets, SIZES, SCALE, SOFT_CAP, BIAS, ALIBI
        )
    if MASKED:
        s = tl.where(allowed(table, dense, batch, head, i[:, None], j[None, :], SIZES, TERMS), s, float("-inf"))
    if plain:
        # Scaling and subtracting the maximum are one instruction.
        now = tl.maximum(top, tl.max(s, 1) * (SCALE * LOG2E))
        p = tl.exp2(s * (SCALE * LOG2E) - now[:, None])
    else:
        now = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - now[:, None])
    shrink = tl.exp2(top - now)
    total = total * shrink + tl.sum(p, 1)
    if DROPOUT[0] == 1:
        p = tl.where(kept(seeds, batch, head, i[:, None], j[None, :], SIZES, DROPOUT), p * SURVIVAL, 0.0)
    acc = acc * shrink[:, None]
    acc = tl.dot(p.to(v_tile.dtype), v_tile, acc, input_precision=PRECISION)
    return now, total, acc
