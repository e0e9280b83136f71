"""Group norm in Triton, on x as `(batch, SPACE, channels)` with GROUPS groups of WIDTH channels.

A tile is `(space, groups, channels of one group)`, so that sums over the axes 0 and 2 are a group's. Where a program
can hold a group's whole share of an example, `forward` and `backward` are one pass over memory each. Where it cannot,
`moments` and `channel_sums` take the sums over parts of the space, and what is left to do is elementwise. Importing
this module needs triton.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def forward(
    x, factor, term, y, mean, rstd,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr, EPSILON: tl.constexpr, SILU: tl.constexpr,
    BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    share: tl.constexpr = 1.0 / (SPACE * WIDTH)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    group, channel, inside_group = _channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    at, inside = _tile(batch, 0, channel, inside_group, SPACE, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
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
def backward(
    h, dy, factor, term, mean, rstd, dx, sum_x, sum_1,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr, SILU: tl.constexpr,
    BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    share: tl.constexpr = 1.0 / (SPACE * WIDTH)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    group, channel, inside_group = _channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    at, inside = _tile(batch, 0, channel, inside_group, SPACE, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
    deviation = tl.load(rstd + batch * GROUPS + group, mask=group < GROUPS, other=0.0)[None, :, None]
    param_at = batch // SHARED * (GROUPS * WIDTH) + channel
    a = tl.load(factor + param_at, mask=inside_group, other=0.0)
    x_hat, dz = _pull(
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
def moments(
    x, mean, variance,
    SPACE: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr,
    BLOCK_SPACE: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (GROUPS + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    share: tl.constexpr = 1.0 / (SPACE * WIDTH)
    partial = (tl.program_id(0) // blocks).to(tl.int64)
    group, channel, inside_group = _channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    first = (partial % PARTS * PART).to(tl.int32)
    last = tl.minimum(first + PART, SPACE)
    middle = tl.zeros([BLOCK_GROUPS], tl.float32)
    spread = tl.zeros([BLOCK_GROUPS], tl.float32)
    seen = 0.0
    for step in tl.range(0, PART, BLOCK_SPACE):
        start = first + step
        at, inside = _tile(partial // PARTS, start, channel, inside_group, last, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
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
    group, channel, inside_group = _channels(tl.program_id(0) % blocks, GROUPS, WIDTH, BLOCK_GROUPS, BLOCK_WIDTH)
    first = (partial % PARTS * PART).to(tl.int32)
    last = tl.minimum(first + PART, SPACE)
    deviation = tl.load(rstd + batch * GROUPS + group, mask=group < GROUPS, other=0.0)[None, :, None]
    param_at = batch // SHARED * (GROUPS * WIDTH) + channel
    a = tl.load(factor + param_at, mask=inside_group, other=0.0)
    of_x = tl.zeros([BLOCK_SPACE, BLOCK_GROUPS, BLOCK_WIDTH], tl.float32)
    of_1 = tl.zeros([BLOCK_SPACE, BLOCK_GROUPS, BLOCK_WIDTH], tl.float32)
    for step in tl.range(0, PART, BLOCK_SPACE):
        start = first + step
        at, inside = _tile(batch, start, channel, inside_group, last, SPACE, GROUPS * WIDTH, BLOCK_SPACE)
        x_hat, dz = _pull(
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


@triton.jit
@no_type_check
def _channels(block, GROUPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_GROUPS: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    group = block * BLOCK_GROUPS + tl.arange(0, BLOCK_GROUPS)
    channel = tl.arange(0, BLOCK_WIDTH)[None, None, :]
    inside = (group < GROUPS)[None, :, None] & (channel < WIDTH)
    return group, group[None, :, None] * WIDTH + channel, inside


@triton.jit
@no_type_check
def _tile(
    batch, start, channel, inside_group, last, SPACE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_SPACE: tl.constexpr
):
    space = start + tl.arange(0, BLOCK_SPACE)[:, None, None]
    at = (batch * SPACE + space) * CHANNELS + channel
    return at, (space < last) & inside_group


@triton.jit
@no_type_check
def _pull(h, dy, a, term, mean, deviation, at, inside, param_at, inside_group, stat_at, has_stat, SILU: tl.constexpr):
    middle = tl.load(mean + stat_at, mask=has_stat, other=0.0)[None, :, None]
    wide = tl.load(h + at, mask=inside, other=0.0).to(tl.float32) - middle
    x_hat = tl.where(inside, wide * deviation, 0.0)
    dz = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        z = x_hat * a + tl.load(term + param_at, mask=inside_group, other=0.0)
        s = tl.sigmoid(z)
        dz *= s * (1.0 + z * (1.0 - s))
    return x_hat, dz
