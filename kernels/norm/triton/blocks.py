"""Blocks of rows and of groups: their indices, and what is loaded into them. Importing this module needs triton."""

# Without the package triton a type checker takes this folder for it.
# pyright: reportAttributeAccessIssue=false

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def row_tile(block, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr):
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_DIM)
    return row, column, (row < ROWS)[:, None] & (column < DIM)[None, :]


@triton.jit
@no_type_check
def load_sum(x, residual, h, at, inside, RESIDUAL: tl.constexpr, STORE: tl.constexpr):
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
def reciprocal_root(x):
    # Correctly rounded, where tl.rsqrt is an approximation; there is one for each row.
    return tl.div_rn(1.0, tl.sqrt_rn(x))


@triton.jit
@no_type_check
def group_channels(
    block, GROUPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr
):
    group = block * BLOCK_GROUPS + tl.arange(0, BLOCK_GROUPS)
    channel = tl.arange(0, BLOCK_WIDTH)[None, None, :]
    inside = (group < GROUPS)[None, :, None] & (channel < WIDTH)
    return group, group[None, :, None] * WIDTH + channel, inside


@triton.jit
@no_type_check
def group_tile(
    batch, start, channel, inside_group, last, SPACE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_SPACE: tl.constexpr
):
    space = start + tl.arange(0, BLOCK_SPACE)[:, None, None]
    at = (batch * SPACE + space) * CHANNELS + channel
    return at, (space < last) & inside_group


@triton.jit
@no_type_check
def load_pulled(
    h, dy, a, term, mean, deviation, at, inside, param_at, inside_group, stat_at, has_stat, SILU: tl.constexpr
):
    middle = tl.load(mean + stat_at, mask=has_stat, other=0.0)[None, :, None]
    wide = tl.load(h + at, mask=inside, other=0.0).to(tl.float32) - middle
    x_hat = tl.where(inside, wide * deviation, 0.0)
    dz = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        z = x_hat * a + tl.load(term + param_at, mask=inside_group, other=0.0)
        s = tl.sigmoid(z)
        dz *= s * (1.0 + z * (1.0 - s))
    return x_hat, dz
