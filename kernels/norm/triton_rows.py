"""Layer norm and RMS norm in Triton, on x as `(examples, ROWS, DIM)` with one factor and one term for each example.

    h = x + residual,    x_hat = (h - mean) * rstd,    y = x_hat * factor + term
    g = dy * factor,     dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat)) + dh

A program holds whole rows in registers (`forward`, `backward`) or walks along one row that is too long for that
(`..._long`). Importing this module needs triton; `triton_launch.py` does it when a program is lowered.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def forward(
    x, residual, factor, term, y, h, mean, rstd,
    ROWS: tl.constexpr, DIM: tl.constexpr, EPSILON: tl.constexpr, CENTER: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (ROWS + BLOCK_ROWS - 1) // BLOCK_ROWS
    share: tl.constexpr = 1.0 / DIM
    example = (tl.program_id(0) // blocks).to(tl.int64)
    row, column, inside = _tile(tl.program_id(0) % blocks, ROWS, DIM, BLOCK_ROWS, BLOCK_DIM)
    row_at = example * ROWS + row
    at = row_at[:, None] * DIM + column[None, :]
    param_at, in_row = example * DIM + column, column < DIM

    wide = _load_sum(x, residual, h, at, inside, RESIDUAL, RESIDUAL)
    if CENTER:
        middle = tl.sum(wide * share, 1)
        tl.store(mean + row_at, middle, mask=row < ROWS)
        wide = tl.where(inside, wide - middle[:, None], 0.0)
    deviation = _reciprocal_root(tl.sum(wide * wide * share, 1) + EPSILON)
    tl.store(rstd + row_at, deviation, mask=row < ROWS)
    a = tl.load(factor + param_at, mask=in_row, other=0.0)
    b = tl.load(term + param_at, mask=in_row, other=0.0)
    z = wide * deviation[:, None] * a[None, :] + b[None, :]
    tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def forward_long(
    x, residual, factor, term, y, h, mean, rstd,
    ROWS: tl.constexpr, DIM: tl.constexpr, EPSILON: tl.constexpr, CENTER: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    share: tl.constexpr = 1.0 / DIM
    row = tl.program_id(0).to(tl.int64)
    param_row, start = row // ROWS * DIM, row * DIM
    middle, variance, seen = 0.0, 0.0, 0.0
    for first in tl.range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        inside = column < DIM
        wide = _load_sum(x, residual, h, start + column, inside, RESIDUAL, RESIDUAL)
        if CENTER:
            # Moments of the parts are merged around their own means, so that no large numbers are subtracted.
            count = tl.minimum(DIM - first, BLOCK_DIM).to(tl.float32)
            part = tl.sum(wide * (1.0 / count), 0)
            seen += count
            apart = part - middle
            middle += apart * (count / seen)
            variance += apart * apart * ((seen - count) * (count / seen) * share)
            wide = tl.where(inside, wide - part, 0.0)
        variance += tl.sum(wide * wide * share, 0)
    deviation = _reciprocal_root(variance + EPSILON)
    if CENTER:
        tl.store(mean + row, middle)
    tl.store(rstd + row, deviation)
    for first in tl.range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        inside = column < DIM
        wide = _load_sum(x, residual, h, start + column, inside, RESIDUAL, False) - middle
        a = tl.load(factor + param_row + column, mask=inside, other=0.0)
        b = tl.load(term + param_row + column, mask=inside, other=0.0)
        tl.store(y + start + column, (wide * deviation * a + b).to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def backward(
    h, dy, dh, factor, mean, rstd, dx, sum_x, sum_1,
    ROWS: tl.constexpr, DIM: tl.constexpr, CENTER: tl.constexpr, RESIDUAL: tl.constexpr,
    PROGRAMS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (ROWS + BLOCK_ROWS - 1) // BLOCK_ROWS
    share: tl.constexpr = 1.0 / DIM
    example = (tl.program_id(0) // PROGRAMS).to(tl.int64)
    column = tl.arange(0, BLOCK_DIM)
    a = tl.load(factor + example * DIM + column, mask=column < DIM, other=0.0)
    # One program takes every PROGRAMS-th block of its example and keeps their sums, so that few rows are left to add
    # up.
    of_x = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    of_1 = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    for turn in tl.range(0, (blocks + PROGRAMS - 1) // PROGRAMS, num_stages=STAGES):
        row, column, inside = _tile(tl.program_id(0) % PROGRAMS + turn * PROGRAMS, ROWS, DIM, BLOCK_ROWS, BLOCK_DIM)
        row_at = example * ROWS + row
        at = row_at[:, None] * DIM + column[None, :]
        wide = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        deviation = tl.load(rstd + row_at, mask=row < ROWS, other=0.0)
        if CENTER:
            wide -= tl.load(mean + row_at, mask=row < ROWS, other=0.0)[:, None]
            wide = tl.where(inside, wide, 0.0)
        x_hat = wide * deviation[:, None]
        g = dz * a[None, :]
        d = g - x_hat * tl.sum(g * x_hat * share, 1)[:, None]
        if CENTER:
            d -= tl.sum(g * share, 1)[:, None]
        d *= deviation[:, None]
        if RESIDUAL:
            d += tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)
        of_x += dz * x_hat
        of_1 += dz
    at = tl.program_id(0).to(tl.int64) * DIM + column
    tl.store(sum_x + at, tl.sum(of_x, 0), mask=column < DIM)
    tl.store(sum_1 + at, tl.sum(of_1, 0), mask=column < DIM)


@triton.jit
@no_type_check
def backward_long(
    h, dy, dh, factor, mean, rstd, dx,
    ROWS: tl.constexpr, DIM: tl.constexpr, CENTER: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    share: tl.constexpr = 1.0 / DIM
    row = tl.program_id(0).to(tl.int64)
    param_row, start = row // ROWS * DIM, row * DIM
    deviation = tl.load(rstd + row)
    middle = 0.0
    if CENTER:
        middle = tl.load(mean + row)
    along, total = 0.0, 0.0
    for first in tl.range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        inside = column < DIM
        x_hat = (tl.load(h + start + column, mask=inside, other=0.0).to(tl.float32) - middle) * deviation
        a = tl.load(factor + param_row + column, mask=inside, other=0.0)
        g = tl.load(dy + start + column, mask=inside, other=0.0).to(tl.float32) * a
        along += tl.sum(g * x_hat * share, 0)
        if CENTER:
            total += tl.sum(g * share, 0)
    for first in tl.range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        inside = column < DIM
        x_hat = (tl.load(h + start + column, mask=inside, other=0.0).to(tl.float32) - middle) * deviation
        a = tl.load(factor + param_row + column, mask=inside, other=0.0)
        g = tl.load(dy + start + column, mask=inside, other=0.0).to(tl.float32) * a
        d = deviation * (g - x_hat * along - total)
        if RESIDUAL:
            d += tl.load(dh + start + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + start + column, d.to(dx.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def column_sums(
    h, dy, mean, rstd, sum_x, sum_1,
    ROWS: tl.constexpr, DIM: tl.constexpr, CENTER: tl.constexpr,
    PROGRAMS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    parts: tl.constexpr = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    blocks: tl.constexpr = (ROWS + BLOCK_ROWS - 1) // BLOCK_ROWS
    partial = (tl.program_id(0) // parts).to(tl.int64)
    example = partial // PROGRAMS
    column = tl.program_id(0) % parts * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    of_x = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    of_1 = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    for turn in tl.range(0, (blocks + PROGRAMS - 1) // PROGRAMS):
        row = (partial % PROGRAMS + turn * PROGRAMS) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = (row < ROWS)[:, None] & (column < DIM)[None, :]
        row_at = example * ROWS + row
        at = row_at[:, None] * DIM + column[None, :]
        wide = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        if CENTER:
            wide -= tl.load(mean + row_at, mask=row < ROWS, other=0.0)[:, None]
        of_x += dz * wide * tl.load(rstd + row_at, mask=row < ROWS, other=0.0)[:, None]
        of_1 += dz
    at = partial * DIM + column
    tl.store(sum_x + at, tl.sum(of_x, 0), mask=column < DIM)
    tl.store(sum_1 + at, tl.sum(of_1, 0), mask=column < DIM)


@triton.jit
@no_type_check
def _tile(block, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr):
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_DIM)
    return row, column, (row < ROWS)[:, None] & (column < DIM)[None, :]


@triton.jit
@no_type_check
def _load_sum(x, residual, h, at, inside, RESIDUAL: tl.constexpr, STORE: tl.constexpr):
    wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        wide += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        # The statistics are those of the h that is kept, which is rounded.
        narrow = wide.to(x.dtype.element_ty)
        wide = narrow.to(tl.float32)
        if STORE:
            tl.store(h + at, narrow, mask=inside)
    return wide


@triton.jit
@no_type_check
def _reciprocal_root(x):
    # Correctly rounded, where tl.rsqrt is an approximation; there is one for each row.
    return tl.div_rn(1.0, tl.sqrt_rn(x))
