"""Kernels of the forward pass. Importing this module needs triton.

Rows: x is `(examples, ROWS, DIM)` with one factor and one term for each example. Groups: x is `(batch, SPACE,
channels)` with GROUPS groups of WIDTH channels, and a block is `(space, groups, channels of one group)`, so that the
sums of a group are over its axes 0 and 2.
"""

# Without the package triton a type checker takes this folder for it.
# pyright: reportAttributeAccessIssue=false

from typing import no_type_check

import triton
import triton.language as tl

from .blocks import group_channels, group_tile, load_sum, reciprocal_root, row_tile


@triton.jit
@no_type_check
def rows_forward(
    x, residual, factor, term, y, h, mean, rstd,
    ROWS: tl.constexpr, DIM: tl.constexpr, EPSILON: tl.constexpr, CENTER: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (ROWS + BLOCK_ROWS - 1) // BLOCK_ROWS
    share: tl.constexpr = 1.0 / DIM
    example = (tl.program_id(0) // blocks).to(tl.int64)
    row, column, inside = row_tile(tl.program_id(0) % blocks, ROWS, DIM, BLOCK_ROWS, BLOCK_DIM)
    row_at = example * ROWS + row
    at = row_at[:, None] * DIM + column[None, :]
    param_at, in_row = example * DIM + column, column < DIM

    wide = load_sum(x, residual, h, at, inside, RESIDUAL, RESIDUAL)
    if CENTER:
        middle = tl.sum(wide * share, 1)
        tl.store(mean + row_at, middle, mask=row < ROWS)
        wide = tl.where(inside, wide - middle[:, None], 0.0)
    deviation = reciprocal_root(tl.sum(wide * wide * share, 1) + EPSILON)
    tl.store(rstd + row_at, deviation, mask=row < ROWS)
    a = tl.load(factor + param_at, mask=in_row, other=0.0)
    b = tl.load(term + param_at, mask=in_row, other=0.0)
    z = wide * deviation[:, None] * a[None, :] + b[None, :]
    tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def long_rows_forward(
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
        wide = load_sum(x, residual, h, start + column, inside, RESIDUAL, RESIDUAL)
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
    deviation = reciprocal_root(variance + EPSILON)
    if CENTER:
        tl.store(mean + row, middle)
    tl.store(rstd + row, deviation)
    for first in tl.range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        inside = column < DIM
        wide = load_sum(x, residual, h, start + column, inside, RESIDUAL, False) - middle
        a = tl.load(factor + param_row + column, mask=inside, other=0.0)
        b = tl.load(term + param_row + column, mask=inside, other=0.0)
        tl.store(y + start + column, (wide * deviation * a + b).to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def groups_forward(
    x, factor, term, y, mean, rstd,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr, EPSILON: tl.constexpr, SILU: tl.constexpr,
    BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    share: tl.constexpr = 1.0 / (SPACE * WIDTH)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    group, channel, inside_group = group_channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    at, inside = group_tile(batch, 0, channel, inside_group, SPACE, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
    wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    middle = tl.sum(tl.sum(wide * share, 2), 0)
    wide = tl.where(inside, wide - middle[None, :, None], 0.0)
    deviation = tl.div_rn(1.0, tl.sqrt_rn(tl.sum(tl.sum(wide * wide * share, 2), 0) + EPSILON))
    tl.store(mean + batch * GROUPS + group, middle, mask=group < GROUPS)
    tl.store(rstd + batch * GROUPS + group, deviation, mask=group < GROUPS)
    param_at = batch // SHARED * (GROUPS * WIDTH) + channel
    a = tl.load(factor + param_at, mask=inside_group, other=0.0)
    b = tl.load(term + param_at, mask=inside_group, other=0.0)
    z = wide * deviation[None, :, None] * a + b
    if SILU:
        z *= tl.sigmoid(z)
    tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def group_moments(
    x, mean, variance,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr,
    BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    share: tl.constexpr = 1.0 / (SPACE * WIDTH)
    partial = (tl.program_id(0) // blocks).to(tl.int64)
    group, channel, inside_group = group_channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    first = (partial % PARTS * PART).to(tl.int32)
    last = tl.minimum(first + PART, SPACE)
    middle = tl.zeros([BLOCK_GROUPS], tl.float32)
    spread = tl.zeros([BLOCK_GROUPS], tl.float32)
    seen = 0.0
    for step in tl.range(0, PART, BLOCK_SPACE):
        start = first + step
        at, inside = group_tile(
            partial // PARTS, start, channel, inside_group, last, SPACE, GROUPS * WIDTH, BLOCK_SPACE
        )
        wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        # Moments of the parts are merged around their own means, so that no large numbers are subtracted.
        count = tl.maximum(tl.minimum(last - start, BLOCK_SPACE), 0).to(tl.float32) * WIDTH
        part = tl.sum(tl.sum(wide * (1.0 / tl.maximum(count, 1.0)), 2), 0)
        wide = tl.where(inside, wide - part[None, :, None], 0.0)
        seen += count
        apart = part - middle
        middle += apart * (count / seen)
        spread += apart * apart * ((seen - count) * (count / seen) * share) + tl.sum(tl.sum(wide * wide * share, 2), 0)
    tl.store(mean + partial * GROUPS + group, middle, mask=group < GROUPS)
    tl.store(variance + partial * GROUPS + group, spread, mask=group < GROUPS)
