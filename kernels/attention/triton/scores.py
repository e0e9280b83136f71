"""Score modification of a tile in Triton: soft cap, bias, mask and dropout; and the loads and stores of tiles.

`i` and `j` are the positions of a tile's queries and keys, (n, 1) and (1, n) or (1, n) and (n, 1), so that the same code
serves tiles of (queries, keys) and of (keys, queries). Tuples of integers are compile-time constants from `launch` and
`terms`. Importing this module needs triton.
"""

# Without the package triton a type checker takes this folder for it.
# pyright: reportAttributeAccessIssue=false

from typing import no_type_check

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
@no_type_check
def finite(x):
    """`x` with 0 for what is not finite: a weight of 0 must not spread it."""
    wide = x.to(tl.float32)
    return tl.where(wide - wide == 0.0, wide, 0.0).to(x.dtype)


@triton.jit
@no_type_check
def nan_rows(x, AXIS: tl.constexpr):
    """NaN for each row of `x` with a number that is not finite, 0 for the others."""
    wide = x.to(tl.float32)
    return tl.where(tl.max(tl.where(wide - wide == 0.0, 0.0, 1.0), AXIS) > 0.0, float("nan"), 0.0)


@triton.jit
@no_type_check
def distance(offsets, batch, i, j, ALIBI: tl.constexpr):
    """ALiBi's distance of each query from each key."""
    return tl.abs(i + tl.load(offsets + batch * ALIBI[2]) - j).to(tl.float32)


@triton.jit
@no_type_check
def logits(
    s, i, j, batch, head, bias, slopes, offsets,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr,
):  # fmt: skip
    """Soft cap and bias of a product: (logits in units of log 2, hyperbolic tangent of the cap)."""
    bend = s
    if SOFT_CAP > 0.0:
        # tanh(x) = 1 - 2 / (exp(2 x) + 1), which is exact at both ends.
        bend = 1.0 - 2.0 / (tl.exp2(s * (2.0 * SCALE / SOFT_CAP * LOG2E)) + 1.0)
        s = bend * (SOFT_CAP * LOG2E)
    else:
        s = s * (SCALE * LOG2E)
    if BIAS[0] == 1:
        plane = bias + batch.to(tl.int64) * BIAS[1] + head.to(tl.int64) * BIAS[2]
        s += (
            tl.load(plane + i * BIAS[3] + j * BIAS[4], mask=(i < SIZES[2]) & (j < SIZES[3]), other=0.0).to(tl.float32)
            * LOG2E
        )
    if ALIBI[0] == 1:
        s -= tl.load(slopes + batch * ALIBI[1] + head) * LOG2E * distance(offsets, batch, i, j, ALIBI)
    return s, bend


@triton.jit
@no_type_check
def _number(table, batch, AT: tl.constexpr, STRIDE: tl.constexpr):
    """A static number, or with a stride of 0 or more one in the table."""
    if STRIDE < 0:
        return AT
    else:
        return tl.load(table + AT + batch * STRIDE)


@triton.jit
@no_type_check
def _term(
    table, dense, batch, head, i, j,
    KIND: tl.constexpr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr, E: tl.constexpr, SIZES: tl.constexpr,
):  # fmt: skip
    inside = (i < SIZES[2]) & (j < SIZES[3])
    if KIND == 0:
        return j <= i + _number(table, batch, A, B)
    elif KIND == 1:
        return j >= i - A
    elif KIND == 2:
        return (j < _number(table, batch, A, B)) & (i >= 0)
    elif KIND == 3:
        return (i < _number(table, batch, A, B)) & (j >= 0)
    elif KIND == 4:
        of_query = tl.load(table + A + batch * B + i, mask=i < SIZES[2], other=0)
        of_key = tl.load(table + C + batch * D + j, mask=j < SIZES[3], other=0)
        return of_query == of_key
    elif KIND == 5:
        return tl.load(table + A + (i // B) * C + j // B, mask=inside, other=0) != 0
    else:
        plane = dense + A + batch.to(tl.int64) * B + head.to(tl.int64) * C
        return tl.load(plane + i * D + j * E, mask=inside, other=0) != 0


@triton.jit
@no_type_check
def allowed(table, dense, batch, head, i, j, SIZES: tl.constexpr, TERMS: tl.constexpr):
    """True if query `i` sees key `j`, by the terms of `terms`, seven numbers each."""
    seen = (i < SIZES[2]) & (j < SIZES[3])
    clause = (i < 0) & (j < 0)
    for n in tl.static_range(0, len(TERMS), 7):
        here = _term(
            table,
            dense,
            batch,
            head,
            i,
            j,
            TERMS[n + 1],
            TERMS[n + 2],
            TERMS[n + 3],
            TERMS[n + 4],
            TERMS[n + 5],
            TERMS[n + 6],
            SIZES,
        )
        clause = clause | here
        if TERMS[n] == 1:
            seen = seen & clause
            clause = (i < 0) & (j < 0)
    return seen


@triton.jit
@no_type_check
def _mix(x):
    x = x ^ (x >> 16)
    x = x * tl.full([1, 1], 0x21F0AAAD, tl.uint32)
    x = x ^ (x >> 15)
    x = x * tl.full([1, 1], 0x735A2D97, tl.uint32)
    return x ^ (x >> 15)


@triton.jit
@no_type_check
def kept(seeds, batch, head, i, j, SIZES: tl.constexpr, DROPOUT: tl.constexpr):
    """The weights that dropout keeps, by the bits of `kernels/_dropout.py`."""
    at = seeds + 2 * (batch * DROPOUT[1] + head)
    first, second = tl.load(at).to(tl.uint32, bitcast=True), tl.load(at + 1).to(tl.uint32, bitcast=True)
    row = i.to(tl.uint32) * tl.full([1, 1], 0x9E3779B9, tl.uint32)
    low, high = _mix(row ^ first), _mix(row + second)
    bits = _mix(_mix(j.to(tl.uint32) + low) ^ high)
    return (bits >> 8) >= DROPOUT[2]


@triton.jit
@no_type_check
def rows_of(x, start, row, SEQ: tl.constexpr, STRIDE: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Rows of one head of an array (seq, heads, dim), 0 beyond its ends."""
    column = tl.arange(0, BLOCK_DIM)
    at = start + row[:, None] * STRIDE + column[None, :]
    if BLOCK_DIM == DIM:
        return tl.load(x + at, mask=row[:, None] < SEQ, other=0.0)
    else:
        return tl.load(x + at, mask=(row[:, None] < SEQ) & (column[None, :] < DIM), other=0.0)


@triton.jit
@no_type_check
def put_rows(
    x, start, row, values, SEQ: tl.constexpr, STRIDE: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr
):
    """Store what `rows_of` loads."""
    column = tl.arange(0, BLOCK_DIM)
    at = start + row[:, None] * STRIDE + column[None, :]
    tl.store(x + at, values.to(x.dtype.element_ty), mask=(row[:, None] < SEQ) & (column[None, :] < DIM))


@triton.jit
@no_type_check
def column_of(entries, start, n, filled, masked_from, LISTED: tl.constexpr, MASKED: tl.constexpr):
    """The n-th full block of a row, or partial block with MASKED, by the row's entries from `start`; see
    `schedule.Schedule`.

    In a row that is not LISTED the active blocks are one run: partial ones, full ones, partial ones.
    """
    if LISTED:
        return tl.load(entries + start + 4 + (filled + n if MASKED else n))
    elif MASKED:
        first = tl.load(entries + start + 1)
        return tl.where(masked_from + n < first, masked_from + n, masked_from + n + filled)
    else:
        return masked_from + n
