"""Kernels of the backward pass, on the layouts of `forward`. Importing this module needs triton."""

# Without the package triton a type checker takes this folder for it.
# pyright: reportAttributeAccessIssue=false

from typing import no_type_check

import triton
import triton.language as tl

from .blocks import group_channels, group_tile, load_pulled, row_tile


@triton.jit
@no_type_check
def rows_backward(
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
        row, column, inside = row_tile(tl.program_id(0) % PROGRAMS + turn * PROGRAMS, ROWS, DIM, BLOCK_ROWS, BLOCK_DIM)
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
def long_rows_backward(
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
def groups_backward(
    h, dy, factor, term, mean, rstd, dx, sum_x, sum_1,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr, SILU: tl.constexpr,
    BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    share: tl.constexpr = 1.0 / (SPACE * WIDTH)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    group, channel, inside_group = group_channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    at, inside = group_tile(batch, 0, channel, inside_group, SPACE, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
    deviation = tl.load(rstd + batch * GROUPS + group, mask=group < GROUPS, other=0.0)[None, :, None]
    param_at = batch // SHARED * (GROUPS * WIDTH) + channel
    a = tl.load(factor + param_at, mask=inside_group, other=0.0)
    x_hat, dz = load_pulled(
        h,
        dy,
        a,
        term,
        mean,
        deviation,
        at,
        inside,
        param_at,
        inside_group,
        batch * GROUPS + group,
        group < GROUPS,
        SILU,
    )
    of_x = tl.sum(dz * x_hat, 0)[None, :, :]
    of_1 = tl.sum(dz, 0)[None, :, :]
    sum_at = batch * (GROUPS * WIDTH) + channel
    tl.store(sum_x + sum_at, of_x, mask=inside_group)
    tl.store(sum_1 + sum_at, of_1, mask=inside_group)
    along = tl.sum(of_x * a * share, 2)[:, :, None]
    total = tl.sum(of_1 * a * share, 2)[:, :, None]
    d = deviation * (dz * a - x_hat * along - total)
    tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def channel_sums(
    h, dy, factor, term, mean, rstd, sum_x, sum_1,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr, SILU: tl.constexpr,
    PARTS: tl.constexpr, PART: tl.constexpr, BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    partial = (tl.program_id(0) // blocks).to(tl.int64)
    batch = partial // PARTS
    group, channel, inside_group = group_channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    first = (partial % PARTS * PART).to(tl.int32)
    last = tl.minimum(first + PART, SPACE)
    deviation = tl.load(rstd + batch * GROUPS + group, mask=group < GROUPS, other=0.0)[None, :, None]
    param_at = batch // SHARED * (GROUPS * WIDTH) + channel
    a = tl.load(factor + param_at, mask=inside_group, other=0.0)
    of_x = tl.zeros([BLOCK_SPACE, BLOCK_GROUPS, BLOCK_WIDTH], tl.float32)
    of_1 = tl.zeros([BLOCK_SPACE, BLOCK_GROUPS, BLOCK_WIDTH], tl.float32)
    for step in tl.range(0, PART, BLOCK_SPACE):
        start = first + step
        at, inside = group_tile(batch, start, channel, inside_group, last, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
        x_hat, dz = load_pulled(
            h,
            dy,
            a,
            term,
            mean,
            deviation,
            at,
            inside,
            param_at,
            inside_group,
            batch * GROUPS + group,
            group < GROUPS,
            SILU,
        )
        of_x += dz * x_hat
        of_1 += dz
    sum_at = partial * (GROUPS * WIDTH) + channel
    tl.store(sum_x + sum_at, tl.sum(of_x, 0)[None, :, :], mask=inside_group)
    tl.store(sum_1 + sum_at, tl.sum(of_1, 0)[None, :, :], mask=inside_group)
