"""The backward kernels in Triton: `backward_kv` sums over queries, `backward_q` over keys, `backward_bias` over the
tiles that share a bias.

Each sum has one program, so the results are deterministic. Importing this module needs triton.
"""

# Without the package triton a type checker takes this folder for it.
# pyright: reportAttributeAccessIssue=false

from typing import no_type_check

import triton
import triton.language as tl

from .scores import LOG2E, allowed, column_of, distance, finite, kept, logits, put_rows, rows_of


@triton.jit
@no_type_check
def _gradients(
    s, dp, lse, delta, i, j, batch, head, bias, slopes, offsets, seeds, table, dense,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """(p with dropout, ds of the capped product, ds of the bias) of a tile, given q k^T and dout v^T."""
    if MASKED and len(TERMS) > 0:
        s = s + (s - s)
    s, bend = logits(s, i, j, batch, head, bias, slopes, offsets, SIZES, SCALE, SOFT_CAP, BIAS, ALIBI)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = tl.exp2(tl.minimum(s - lse * LOG2E, 0.0, propagate_nan=tl.PropagateNan.ALL))
    if MASKED:
        seen = allowed(table, dense, batch, head, i, j, SIZES, TERMS)
        p = tl.where(seen, p, 0.0)
    dropped = p
    if DROPOUT[0] == 1:
        keep = kept(seeds, batch, head, i, j, SIZES, DROPOUT)
        dropped = tl.where(keep, p * SURVIVAL, 0.0)
        dp = tl.where(keep, dp * SURVIVAL, 0.0)
    ds = p * (dp - delta)
    if MASKED:
        ds = tl.where(seen, ds, 0.0)
    inner = ds
    if SOFT_CAP > 0.0:
        inner = ds * (1.0 - bend * bend)
        if MASKED:
            inner = tl.where(seen, inner, 0.0)
    return dropped, inner, ds


@triton.jit
@no_type_check
def backward_q(
    q, k, v, dout, lse, delta, bias, slopes, offsets, seeds, table, dense, entries, dq,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, PLAN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    rows: tl.constexpr = (SIZES[2] + BLOCK_Q - 1) // BLOCK_Q
    heads: tl.constexpr = SIZES[0]
    row = rows - 1 - tl.program_id(0) % rows
    head = tl.program_id(0) // rows % heads
    batch = tl.program_id(0) // (rows * heads)
    first_row = batch.to(tl.int64) * SIZES[2] * heads + head
    group = batch.to(tl.int64) * SIZES[3] * (heads // SIZES[1]) + head // SIZES[1]
    i = row * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q_tile = rows_of(q, first_row * SIZES[4], i, SIZES[2], heads * SIZES[4], SIZES[4], BLOCK_DIM)
    dout_tile = rows_of(dout, first_row * SIZES[5], i, SIZES[2], heads * SIZES[5], SIZES[5], BLOCK_V)
    stat_at = (batch * heads + head) * SIZES[2] + i
    lse_row = tl.load(lse + stat_at, mask=i < SIZES[2], other=0.0)
    delta_row = tl.load(delta + stat_at, mask=i < SIZES[2], other=0.0)
    acc = tl.zeros([BLOCK_Q, BLOCK_DIM], tl.float32)

    start = (batch * PLAN[1] + head * PLAN[2] + row) * PLAN[3]
    filled, first = tl.load(entries + start), tl.load(entries + start + 1)
    cut, first_cut = tl.load(entries + start + 2), tl.load(entries + start + 3)
    for n in tl.range(0, filled):
        column = column_of(entries, start, n, filled, first, PLAN[0] == 1, False)
        acc = _step_q(
            acc, q_tile, dout_tile, lse_row, delta_row, k, v, bias, slopes, offsets, seeds, table, dense, i, column, batch, head, group,
            SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, PRECISION, False, BLOCK_K, BLOCK_DIM, BLOCK_V,
        )  # fmt: skip
    for n in tl.range(0, cut):
        column = column_of(entries, start, n, filled, first_cut, PLAN[0] == 1, True)
        acc = _step_q(
            acc, q_tile, dout_tile, lse_row, delta_row, k, v, bias, slopes, offsets, seeds, table, dense, i, column, batch, head, group,
            SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, PRECISION, True, BLOCK_K, BLOCK_DIM, BLOCK_V,
        )  # fmt: skip
    put_rows(dq, first_row * SIZES[4], i, acc * SCALE, SIZES[2], heads * SIZES[4], SIZES[4], BLOCK_DIM)


@triton.jit
@no_type_check
def _step_q(
    acc, q_tile, dout_tile, lse_row, delta_row, k, v, bias, slopes, offsets, seeds, table, dense, i, column, batch, head, group,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    groups: tl.constexpr = SIZES[0] // SIZES[1]
    j = column * BLOCK_K + tl.arange(0, BLOCK_K)
    k_tile = rows_of(k, group * SIZES[4], j, SIZES[3], groups * SIZES[4], SIZES[4], BLOCK_DIM)
    v_tile = rows_of(v, group * SIZES[5], j, SIZES[3], groups * SIZES[5], SIZES[5], BLOCK_V)
    s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
    dp = tl.dot(dout_tile, tl.trans(v_tile), input_precision=PRECISION)
    _, ds, _ = _gradients(
        s, dp, lse_row[:, None], delta_row[:, None], i[:, None], j[None, :], batch, head, bias, slopes, offsets, seeds, table, dense,
        SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, MASKED,
    )  # fmt: skip
    if MASKED and len(TERMS) > 0:
        k_tile = finite(k_tile)
    return tl.dot(ds.to(k_tile.dtype), k_tile, acc, input_precision=PRECISION)


@triton.jit
@no_type_check
def backward_kv(
    q, k, v, dout, lse, delta, bias, slopes, offsets, seeds, table, dense, entries, dk, dv,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, PLAN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    rows: tl.constexpr = (SIZES[3] + BLOCK_K - 1) // BLOCK_K
    groups: tl.constexpr = SIZES[0] // SIZES[1]
    # The first keys of a causal mask have the most queries: they start first.
    row = tl.program_id(0) % rows
    group = tl.program_id(0) // rows % groups
    batch = tl.program_id(0) // (rows * groups)
    first_row = batch.to(tl.int64) * SIZES[3] * groups + group
    j = row * BLOCK_K + tl.arange(0, BLOCK_K)
    k_tile = rows_of(k, first_row * SIZES[4], j, SIZES[3], groups * SIZES[4], SIZES[4], BLOCK_DIM)
    v_tile = rows_of(v, first_row * SIZES[5], j, SIZES[3], groups * SIZES[5], SIZES[5], BLOCK_V)
    dk_acc = tl.zeros([BLOCK_K, BLOCK_DIM], tl.float32)
    dv_acc = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    for member in range(SIZES[1]):
        head = group * SIZES[1] + member
        start = (batch * PLAN[1] + head * PLAN[2] + row) * PLAN[3]
        filled, first = tl.load(entries + start), tl.load(entries + start + 1)
        cut, first_cut = tl.load(entries + start + 2), tl.load(entries + start + 3)
        for n in tl.range(0, filled):
            column = column_of(entries, start, n, filled, first, PLAN[0] == 1, False)
            dk_acc, dv_acc = _step_kv(
                dk_acc, dv_acc, k_tile, v_tile, q, dout, lse, delta, bias, slopes, offsets, seeds, table, dense, j, column, batch, head,
                SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, PRECISION, False, BLOCK_Q, BLOCK_DIM, BLOCK_V,
            )  # fmt: skip
        for n in tl.range(0, cut):
            column = column_of(entries, start, n, filled, first_cut, PLAN[0] == 1, True)
            dk_acc, dv_acc = _step_kv(
                dk_acc, dv_acc, k_tile, v_tile, q, dout, lse, delta, bias, slopes, offsets, seeds, table, dense, j, column, batch, head,
                SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, PRECISION, True, BLOCK_Q, BLOCK_DIM, BLOCK_V,
            )  # fmt: skip
    put_rows(dk, first_row * SIZES[4], j, dk_acc * SCALE, SIZES[3], groups * SIZES[4], SIZES[4], BLOCK_DIM)
    put_rows(dv, first_row * SIZES[5], j, dv_acc, SIZES[3], groups * SIZES[5], SIZES[5], BLOCK_V)


@triton.jit
@no_type_check
def _step_kv(
    dk_acc, dv_acc, k_tile, v_tile, q, dout, lse, delta, bias, slopes, offsets, seeds, table, dense, j, column, batch, head,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    heads: tl.constexpr = SIZES[0]
    i = column * BLOCK_Q + tl.arange(0, BLOCK_Q)
    first_row = batch.to(tl.int64) * SIZES[2] * heads + head
    q_tile = rows_of(q, first_row * SIZES[4], i, SIZES[2], heads * SIZES[4], SIZES[4], BLOCK_DIM)
    dout_tile = rows_of(dout, first_row * SIZES[5], i, SIZES[2], heads * SIZES[5], SIZES[5], BLOCK_V)
    stat_at = (batch * heads + head) * SIZES[2] + i
    lse_row = tl.load(lse + stat_at, mask=i < SIZES[2], other=0.0)
    delta_row = tl.load(delta + stat_at, mask=i < SIZES[2], other=0.0)
    s = tl.dot(k_tile, tl.trans(q_tile), input_precision=PRECISION)
    dp = tl.dot(v_tile, tl.trans(dout_tile), input_precision=PRECISION)
    p, ds, _ = _gradients(
        s, dp, lse_row[None, :], delta_row[None, :], i[None, :], j[:, None], batch, head, bias, slopes, offsets, seeds, table, dense,
        SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, MASKED,
    )  # fmt: skip
    if MASKED and len(TERMS) > 0:
        q_tile = finite(q_tile)
    dv_acc = tl.dot(p.to(dout_tile.dtype), dout_tile, dv_acc, input_precision=PRECISION)
    dk_acc = tl.dot(ds.to(q_tile.dtype), q_tile, dk_acc, input_precision=PRECISION)
    return dk_acc, dv_acc


@triton.jit
@no_type_check
def backward_bias(
    q, k, v, dout, lse, delta, bias, slopes, offsets, seeds, table, dense, dbias,
    SIZES: tl.constexpr, SCALE: tl.constexpr, SOFT_CAP: tl.constexpr, BIAS: tl.constexpr, ALIBI: tl.constexpr, DROPOUT: tl.constexpr,
    SURVIVAL: tl.constexpr, TERMS: tl.constexpr, OWN: tl.constexpr, SHARED: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """One block of the bias, or of ALiBi's slopes, summed over a part of the tiles that read it.

    OWN holds the bias' numbers of examples, heads, blocks of queries and blocks of keys, and 1 or 0 for each of the last
    two axes that it has; SHARED holds the numbers of the call's that share each of these.
    """
    heads: tl.constexpr = SIZES[0]
    groups: tl.constexpr = SIZES[0] // SIZES[1]
    own = tl.program_id(0) // PARTS
    part = tl.program_id(0) % PARTS
    own_column = own % OWN[3]
    own_row = own // OWN[3] % OWN[2]
    own_head = own // (OWN[3] * OWN[2]) % OWN[1]
    own_batch = own // (OWN[3] * OWN[2] * OWN[1])
    acc = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    last = tl.minimum((part + 1) * PART, SHARED[0] * SHARED[1] * SHARED[2] * SHARED[3])
    for n in tl.range(part * PART, last):
        column = own_column * SHARED[3] + n % SHARED[3]
        row = own_row * SHARED[2] + n // SHARED[3] % SHARED[2]
        head = own_head * SHARED[1] + n // (SHARED[3] * SHARED[2]) % SHARED[1]
        batch = own_batch * SHARED[0] + n // (SHARED[3] * SHARED[2] * SHARED[1])
        i = row * BLOCK_Q + tl.arange(0, BLOCK_Q)
        j = column * BLOCK_K + tl.arange(0, BLOCK_K)
        first_row = batch.to(tl.int64) * SIZES[2] * heads + head
        group = batch.to(tl.int64) * SIZES[3] * groups + head // SIZES[1]
        q_tile = rows_of(q, first_row * SIZES[4], i, SIZES[2], heads * SIZES[4], SIZES[4], BLOCK_DIM)
        k_tile = rows_of(k, group * SIZES[4], j, SIZES[3], groups * SIZES[4], SIZES[4], BLOCK_DIM)
        v_tile = rows_of(v, group * SIZES[5], j, SIZES[3], groups * SIZES[5], SIZES[5], BLOCK_V)
        dout_tile = rows_of(dout, first_row * SIZES[5], i, SIZES[2], heads * SIZES[5], SIZES[5], BLOCK_V)
        stat_at = (batch * heads + head) * SIZES[2] + i
        lse_row = tl.load(lse + stat_at, mask=i < SIZES[2], other=0.0)
        delta_row = tl.load(delta + stat_at, mask=i < SIZES[2], other=0.0)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        dp = tl.dot(dout_tile, tl.trans(v_tile), input_precision=PRECISION)
        _, _, ds = _gradients(
            s, dp, lse_row[:, None], delta_row[:, None], i[:, None], j[None, :], batch, head, bias, slopes, offsets, seeds, table, dense,
            SIZES, SCALE, SOFT_CAP, BIAS, ALIBI, DROPOUT, SURVIVAL, TERMS, True,
        )  # fmt: skip
        ds = tl.where(i[:, None] < SIZES[2], ds, 0.0)
        if ALIBI[0] == 1:
            ds = -ds * distance(offsets, batch, i[:, None], j[None, :], ALIBI)
        acc += ds
    # A bias that broadcasts along an axis has one row or column there.
    q_size: tl.constexpr = SIZES[2] if OWN[4] == 1 else 1
    k_size: tl.constexpr = SIZES[3] if OWN[5] == 1 else 1
    plane = dbias + ((part * OWN[0] + own_batch).to(tl.int64) * OWN[1] + own_head) * (q_size * k_size)
    i = own_row * BLOCK_Q + tl.arange(0, BLOCK_Q)
    j = own_column * BLOCK_K + tl.arange(0, BLOCK_K)
    if OWN[4] == 0:
        acc = tl.sum(acc, 0)[None, :]
        i = tl.zeros([1], tl.int32)
    if OWN[5] == 0:
        acc = tl.sum(acc, 1)[:, None]
        j = tl.zeros([1], tl.int32)
    tl.store(plane + i[:, None] * k_size + j[None, :], acc, mask=(i[:, None] < q_size) & (j[None, :] < k_size))
