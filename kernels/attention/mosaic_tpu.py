"""Flash attention for TPU in Pallas: forward, and a backward pass of two kernels, or three where the bias has a gradient.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse;  dbias = ds;  dq = scale ds k;  dk = scale ds^T q

Blocks that the mask empties are not visited and cost no copy; blocks that it fills skip its evaluation. Sequences are padded inside to
a multiple of the block. The backward kernels hold the tile transposed, (keys, queries), so that the row statistics lie along lanes.

Source: Dao 2023 (FlashAttention-2); the list of visits per row follows the idea of block-sparse prefetch lists.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import _dropout, masks
from . import blocks
from .bias import ALiBi
from .problem import Extras, Setting

LANES = 128
FORWARD_BLOCK, BACKWARD_BLOCK = 512, 256
# Lists of visits live in scalar memory; longer ones are shared by all examples and heads.
MOST_ENTRIES = 1 << 15
LOW = -0.7 * float(np.finfo(np.float32).max)


def supports(q, k, v, extras: Extras, setting: Setting) -> str | None:
    """Why this call cannot run as a TPU kernel, or None."""
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the kernel computes float32 and bfloat16: got {q.dtype}"
    if max(q.shape[-1], v.shape[-1]) > 512:
        return f"head_dim above 512 does not fit the fast memory: got {max(q.shape[-1], v.shape[-1])}"
    return None


@dataclasses.dataclass(frozen=True)
class _Tile:
    """The tile at hand: example, head, block of queries, block of keys."""

    b: Any
    h: Any
    q: Any
    k: Any


@dataclasses.dataclass(frozen=True)
class _Shape:
    batch: int
    heads: int
    kv_heads: int
    q_seq: int
    kv_seq: int
    q_block: int
    kv_block: int

    @property
    def repeat(self) -> int:
        return self.heads // self.kv_heads

    @property
    def q_blocks(self) -> int:
        return -(-self.q_seq // self.q_block)

    @property
    def kv_blocks(self) -> int:
        return -(-self.kv_seq // self.kv_block)


def _shape(q, k, v, most: int) -> _Shape:
    widest = max(q.shape[-1], v.shape[-1]) * (2 if q.dtype == jnp.float32 else 1)
    most = most if widest <= 256 else most // 2

    def block(seq: int) -> int:
        count = -(-seq // most)
        return -(-seq // (count * LANES)) * LANES

    return _Shape(q.shape[0], q.shape[1], k.shape[1], q.shape[2], k.shape[2], block(q.shape[2]), block(k.shape[2]))


def _pad(x, axis: int, block: int):
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, -x.shape[axis] % block)
    return jnp.pad(x, pad)


def _div(a, b: int):
    # Python's `//` rounds down, for which Pallas asks the device of the process, not the one it compiles for.
    return a if b == 1 else jax.lax.div(a, jnp.int32(b))


def _rem(a, b: int):
    return jnp.int32(0) if b == 1 else jax.lax.rem(a, jnp.int32(b))


def _operand(x, block: tuple, index: Callable[[_Tile], tuple]):
    return x, block, index


@dataclasses.dataclass(frozen=True)
class _Extra:
    """The operands that bias, mask and dropout add to a kernel, and how a kernel reads them back."""

    scalars: list[Any]
    tiles: list[Any]
    slopes: list[Any]
    mask: masks.Mask | None
    kinds: tuple[str, ...]


def _first(x, index):
    return index if x.shape[0] > 1 else 0


def _extra(extras: Extras, shape: _Shape, flip: bool) -> _Extra:
    mask = _without_patterns(extras.mask, shape)
    scalars, tiles, slopes, kinds = [], [], [], []

    def add_tile(x, axes):
        q_axis, k_axis = "q" in axes, "k" in axes
        if len(axes) == 4:
            q_axis, k_axis = x.shape[2] > 1, x.shape[3] > 1
        x = x.reshape(tuple(x.shape[axes.index(a)] if a in axes else 1 for a in "bhqk"))
        for axis, block, has in ((2, shape.q_block, q_axis), (3, shape.kv_block, k_axis)):
            x = _pad(x, axis, block) if has else x
        if not (q_axis and k_axis) and x.dtype == jnp.int8:
            x = x.astype(jnp.int32)
        swap = flip and not (q_axis and k_axis)
        rows, columns = (shape.q_block if q_axis else 1), (shape.kv_block if k_axis else 1)
        place = lambda t, x=x: (_first(x, t.b), t.h if x.shape[1] > 1 else 0, t.q if q_axis else 0, t.k if k_axis else 0)
        if swap:
            tiles.append(_operand(jnp.swapaxes(x, 2, 3), (1, 1, columns, rows), lambda t: tuple(place(t)[a] for a in (0, 1, 3, 2))))
        else:
            tiles.append(_operand(x, (1, 1, rows, columns), place))
        return "turned" if flip and not swap else "tile"

    if mask is not None:
        for axes, x in zip(mask.axes, mask.arrays()):
            if isinstance(x, int):
                kinds.append("int")
            elif axes == "b":
                scalars.append(x)
                kinds.append("scalar")
            else:
                kinds.append(add_tile(x.astype(jnp.int8) if x.dtype == bool else x, axes))
    if isinstance(extras.bias, ALiBi):
        scalars.append(extras.bias.offset)
        slopes.append(extras.bias.slopes.astype(jnp.float32))
        kinds.append("alibi")
    elif extras.bias is not None:
        kinds.append(add_tile(extras.bias.astype(jnp.float32), "bhqk"))
    if extras.seeds is not None:
        scalars.append(extras.seeds.reshape(-1))
    return _Extra(scalars, tiles, slopes, mask, tuple(kinds))


def _without_patterns(mask, shape: _Shape):
    """A block pattern cannot be looked up inside the kernel, so the tiles that need it get it spelled out."""
    if isinstance(mask, masks.BlockSparse):
        matrix = mask.pattern.matrix.repeat(mask.block, 0).repeat(mask.block, 1)[: shape.q_seq, : shape.kv_seq]
        return masks.Dense(jnp.asarray(matrix).reshape(1, 1, *matrix.shape))
    if isinstance(mask, (masks.And, masks.Or)):
        return type(mask)(_without_patterns(mask.left, shape), _without_patterns(mask.right, shape))
    return mask


class _Reader:
    """Reads a kernel's extra operands for one tile and applies them to its logits."""

    def __init__(self, extra: _Extra, extras: Extras, setting: Setting, shape: _Shape, flip: bool, scalars, tiles, slopes):
        self.extra, self.setting, self.shape, self.flip = extra, setting, shape, flip
        self.extras: Any = extras
        self.scalars, self.tiles, self.slopes = list(scalars), list(tiles), list(slopes)

    def positions(self, tile: _Tile):
        rows, columns = (1, self.shape.q_block), (self.shape.kv_block, 1)
        if not self.flip:
            rows, columns = rows[::-1], columns[::-1]
        i = tile.q * self.shape.q_block + jax.lax.broadcasted_iota(jnp.int32, rows, 1 if self.flip else 0)
        j = tile.k * self.shape.kv_block + jax.lax.broadcasted_iota(jnp.int32, columns, 0 if self.flip else 1)
        return i, j

    def logits(self, s, tile: _Tile, masked: bool):
        """Soft cap, bias and mask: (logits, capped product, allowed or None)."""
        i, j = self.positions(tile)
        scalars, tiles = iter(self.scalars), iter(self.tiles)
        kinds = list(self.extra.kinds)
        bias_kind = kinds.pop() if len(kinds) > (0 if self.extra.mask is None else len(self.extra.mask.axes)) else None
        views = []
        arrays = self.extra.mask.arrays() if self.extra.mask is not None else ()
        for kind, x in zip(kinds, arrays):
            if kind == "int":
                views.append(x)
            elif kind == "scalar":
                views.append(next(scalars)[_first(x, tile.b)])
            else:
                ref = next(tiles)
                views.append(self._load(ref, kind) if masked else None)
        if self.setting.soft_cap is not None:
            s = self.setting.soft_cap * jnp.tanh(s / self.setting.soft_cap)
        capped = s
        bias: Any = self.extras.bias
        if bias_kind == "alibi":
            slope = self.slopes[0][_first(bias.slopes, tile.b), tile.h]
            offset = next(scalars)[_first(bias.offset, tile.b)]
            s = s - slope * jnp.abs(i + offset - j).astype(jnp.float32)
        elif bias_kind is not None:
            s = s + self._load(next(tiles), bias_kind)
        if not masked:
            return s, capped, None
        allowed = j < self.shape.kv_seq
        if self.extra.mask is not None:
            allowed = allowed & self.extra.mask.allowed(i, j, *views)
        allowed = jnp.broadcast_to(allowed, s.shape)
        return jnp.where(allowed, s, LOW), capped, allowed

    def _load(self, ref, kind: str):
        x = ref[0, 0]
        if x.dtype == jnp.int8:
            x = x.astype(jnp.int32)
        return x.T if kind == "turned" else x

    def kept(self, tile: _Tile):
        """Where dropout keeps a weight, or None."""
        if self.extras.seeds is None:
            return None
        i, j = self.positions(tile)
        seeds = self.scalars[-1]
        at = 2 * (_first(self.extras.seeds, tile.b) * self.shape.heads + tile.h)
        return _dropout.keep(seeds[at], seeds[at + 1], i, j, self.setting.dropout_rate)


def _precision(x):
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def _dot(a, b, contract: tuple[int, int]):
    """The product of two tiles over one axis of each, summed in float32."""
    return jax.lax.dot_general(
        a, b, (((contract[0],), (contract[1],)), ((), ())), precision=_precision(a), preferred_element_type=jnp.float32
    )


def _finite(x):
    """NaN as 0: such a row has NaN logits already for those who may see it, and weight 0 must hide it from all others."""
    y = x.astype(jnp.float32)
    return jnp.where(y == y, y, 0.0).astype(x.dtype)


def _launch(body, name, grid, where, operands, outs, scratch, entries, extra: _Extra, semantics, like, interpret):
    """A `pallas_call` whose operands are placed by tile; `where(ids, entries)` is the tile of a grid point."""
    scalars = [entries.reshape(-1), *extra.scalars]
    count = len(scalars)

    def spec(block, index):
        return pl.BlockSpec(block, lambda *ids: tuple(index(where(ids[: len(grid)], ids[len(grid)]))))

    operands = [*operands, *extra.tiles]
    in_specs = [spec(block, index) for _, block, index in operands] + [pl.BlockSpec(memory_space=pltpu.SMEM) for _ in extra.slopes]
    out_shape = [jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(like).manual_axis_type) for shape, dtype, _, _ in outs]
    return pl.pallas_call(
        body,
        name=name,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=count,
            grid=grid,
            in_specs=in_specs,
            out_specs=[spec(block, index) for _, _, block, index in outs],
            scratch_shapes=scratch,
        ),
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=64 * 2**20),
        interpret=interpret,
    )(*scalars, *(x for x, _, _ in operands), *extra.slopes)


def _split_refs(refs, extra: _Extra, operands: int, outs: int):
    """(entries, scalars, operands, tiles, slopes, outs, scratch) of a kernel's references."""
    parts, at = [], 0
    for size in (1, len(extra.scalars), operands, len(extra.tiles), len(extra.slopes), outs):
        parts.append(refs[at : at + size])
        at += size
    return *parts, refs[at:]


def _table(some, every, shape: _Shape):
    """Flat entries and how to look them up. Each row is (count, visits...)."""
    entries, counts = blocks.visits(some, every)
    if math.prod(entries.shape) > MOST_ENTRIES and entries.shape[0] * entries.shape[1] > 1:
        entries, counts = blocks.visits(some.any((0, 1), keepdims=True), every.all((0, 1), keepdims=True))
    b, h, rows, steps = entries.shape
    lib: Any = np if isinstance(entries, np.ndarray) else jnp
    table = jnp.asarray(lib.concatenate([counts[..., None], entries], -1))

    def row(batch, head, index):
        at = ((batch if b > 1 else 0) * h + (head if h > 1 else 0)) * rows + index
        return at * (steps + 1)

    return table, row, steps


def _quarantine(q, k, v, masked: bool):
    """Rows of q and k that hold a number that is not finite, in k or v, become NaN; v becomes finite."""
    if not masked:
        return q, k, v
    bad_q = ~jnp.isfinite(q).all(-1, keepdims=True)
    bad_k = ~(jnp.isfinite(k).all(-1, keepdims=True) & jnp.isfinite(v).all(-1, keepdims=True))
    return jnp.where(bad_q, jnp.nan, q), jnp.where(bad_k, jnp.nan, k), jnp.where(jnp.isfinite(v), v, 0)


def forward(q, k, v, extras: Extras, setting: Setting, *, interpret: Any = False):
    """`reference.attend` as one kernel."""
    shape = _shape(q, k, v, FORWARD_BLOCK)
    q_dtype, v_dim = q.dtype, v.shape[-1]
    q, k, v = _quarantine(q, k, v, extras.mask is not None)
    table, row, steps = _table(*blocks.spread(extras.mask, shape.q_seq, shape.kv_seq, shape.q_block, shape.kv_block), shape)
    extra = _extra(extras, shape, flip=False)

    def where(ids, entries):
        b, h, qi, n = ids
        return _Tile(b, h, qi, entries[row(b, h, qi) + 1 + n] >> 1)

    def body(*refs):
        (entries,), scalars, (q_ref, k_ref, v_ref), tiles, slopes, (out_ref, lse_ref), (top, total, acc) = _split_refs(refs, extra, 3, 2)
        reader = _Reader(extra, extras, setting, shape, False, scalars, tiles, slopes)
        ids = [pl.program_id(axis) for axis in range(4)]
        tile, n = where(ids, entries), ids[3]
        start = row(*ids[:3])

        @pl.when(n == 0)
        def _():
            top[...] = jnp.full_like(top, LOW)
            total[...] = jnp.zeros_like(total)
            acc[...] = jnp.zeros_like(acc)

        def step(masked):
            s = _dot(q_ref[0, 0], k_ref[0, 0], (1, 1)) * setting.scale
            s, _, allowed = reader.logits(s, tile, masked)
            before = top[:, :1]
            now = jnp.maximum(before, jnp.max(s, axis=1, keepdims=True))
            p = jnp.exp(s - now)
            if allowed is not None:
                p = jnp.where(allowed, p, 0.0)
            shrink = jnp.exp(before - now)
            total[...] = jnp.broadcast_to(shrink * total[:, :1] + jnp.sum(p, axis=1, keepdims=True), total.shape)
            top[...] = jnp.broadcast_to(now, top.shape)
            kept = reader.kept(tile)
            if kept is not None:
                p = jnp.where(kept, p * (1.0 / (1.0 - setting.dropout_rate)), 0.0)
            acc[...] = acc[...] * shrink + _dot(p.astype(v_ref.dtype), v_ref[0, 0], (1, 0))

        _visit(step, n < entries[start], entries[start + 1 + n])

        @pl.when(n == steps - 1)
        def _():
            empty = total[...] == 0.0
            safe = jnp.where(empty, 1.0, total[...])
            out_ref[0, 0] = (acc[...] / safe[:, :1]).astype(out_ref.dtype)
            lse = jnp.where(empty, -jnp.inf, top[...] + jnp.log(safe))
            lse_ref[0, 0] = lse.T[:1]

    q, k, v = _pad(q, 2, shape.q_block), _pad(k, 2, shape.kv_block), _pad(v, 2, shape.kv_block)
    bq, bk = shape.q_block, shape.kv_block
    out, lse = _launch(
        body,
        "eqxgen_attention_forward",
        (shape.batch, shape.heads, shape.q_blocks, steps),
        where,
        [
            _operand(q, (1, 1, bq, q.shape[-1]), lambda t: (t.b, t.h, t.q, 0)),
            _operand(k, (1, 1, bk, k.shape[-1]), lambda t: (t.b, _div(t.h, shape.repeat), t.k, 0)),
            _operand(v, (1, 1, bk, v_dim), lambda t: (t.b, _div(t.h, shape.repeat), t.k, 0)),
        ],
        [
            ((*q.shape[:3], v_dim), q_dtype, (1, 1, bq, v_dim), lambda t: (t.b, t.h, t.q, 0)),
            ((*q.shape[:2], 1, q.shape[2]), jnp.float32, (1, 1, 1, bq), lambda t: (t.b, t.h, 0, t.q)),
        ],
        [pltpu.VMEM((bq, LANES), jnp.float32), pltpu.VMEM((bq, LANES), jnp.float32), pltpu.VMEM((bq, v_dim), jnp.float32)],
        table,
        extra,
        ("parallel", "parallel", "parallel", "arbitrary"),
        q,
        interpret,
    )
    return out[:, :, : shape.q_seq], lse[:, :, 0, : shape.q_seq]


def _visit(step, inside, entry):
    """Run `step(masked)` for an entry of the list of visits."""

    @pl.when(inside & (entry & 1 == 0))
    def _():
        step(False)

    @pl.when(inside & (entry & 1 == 1))
    def _():
        step(True)


def _weights(reader: _Reader, tile: _Tile, masked: bool, q, k, v, dout, lse, delta):
    """The transposed tile of the backward pass: (p with dropout, ds of the capped product, ds of the bias)."""
    setting = reader.setting
    s, capped, allowed = reader.logits(_dot(k, q, (1, 1)) * setting.scale, tile, masked)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = jnp.exp(jnp.minimum(s - lse, 0.0))
    if allowed is not None:
        p = jnp.where(allowed, p, 0.0)
    dp = _dot(v, dout, (1, 1))
    dropped = p
    kept = reader.kept(tile)
    if kept is not None:
        inverse = 1.0 / (1.0 - setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = p * (dp - delta)
    if allowed is not None:
        ds = jnp.where(allowed, ds, 0.0)
    inner = ds
    if setting.soft_cap is not None:
        inner = ds * (1.0 - jnp.square(capped / setting.soft_cap))
        inner = jnp.where(allowed, inner, 0.0) if allowed is not None else inner
    return dropped, inner, ds


def backward(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, interpret: Any = False):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    shape = _shape(q, k, v, BACKWARD_BLOCK)
    delta = jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), -1) - dlse
    empty = lse == -jnp.inf
    lse, delta, dout = jnp.where(empty, 0.0, lse), jnp.where(empty, 0.0, delta), jnp.where(empty[..., None], 0, dout)
    masked = extras.mask is not None
    q, k, v = _quarantine(q, k, v, masked)
    some, every = blocks.spread(extras.mask, shape.q_seq, shape.kv_seq, shape.q_block, shape.kv_block)
    bq, bk = shape.q_block, shape.kv_block
    pad_q, pad_k = (lambda x, axis=2: _pad(x, axis, bq)), (lambda x: _pad(x, 2, bk))
    row_stat = lambda x: pad_q(x[:, :, None, :], 3)
    q, k, v, dout, lse, delta = pad_q(q), pad_k(k), pad_k(v), pad_q(dout), row_stat(lse), row_stat(delta)
    queries = lambda x: _operand(x, (1, 1, bq, x.shape[-1]), lambda t: (t.b, t.h, t.q, 0))
    keys = lambda x: _operand(x, (1, 1, bk, x.shape[-1]), lambda t: (t.b, _div(t.h, shape.repeat), t.k, 0))
    rows = lambda x: _operand(x, (1, 1, 1, bq), lambda t: (t.b, t.h, 0, t.q))
    operands = [queries(q), keys(k), keys(v), queries(dout), rows(lse), rows(delta)]
    extra = _extra(extras, shape, flip=True)
    clean = _finite if masked else lambda x: x
    launch = functools.partial(_launch, extra=extra, like=q, interpret=interpret)

    def read(refs, outs):
        (entries,), scalars, ins, tiles, slopes, outs, scratch = _split_refs(refs, extra, 6, outs)
        return entries, _Reader(extra, extras, setting, shape, True, scalars, tiles, slopes), ins, outs, scratch

    load = lambda refs: [ref[0, 0] for ref in refs]

    def q_gradient():
        table, row, steps = _table(some, every, shape)

        def where(ids, entries):
            b, h, qi, n = ids
            return _Tile(b, h, qi, entries[row(b, h, qi) + 1 + n] >> 1)

        def body(*refs):
            entries, reader, ins, (dq_ref,), (acc,) = read(refs, 1)
            ids = [pl.program_id(axis) for axis in range(4)]
            tile, n, start = where(ids, entries), ids[3], row(*ids[:3])

            @pl.when(n == 0)
            def _():
                acc[...] = jnp.zeros_like(acc)

            def step(masked):
                values = load(ins)
                _, ds, _ = _weights(reader, tile, masked, *values)
                acc[...] += _dot(ds.T.astype(values[1].dtype), clean(values[1]), (1, 0))

            _visit(step, n < entries[start], entries[start + 1 + n])

            @pl.when(n == steps - 1)
            def _():
                dq_ref[0, 0] = (acc[...] * setting.scale).astype(dq_ref.dtype)

        return launch(
            body,
            "eqxgen_attention_backward_q",
            (shape.batch, shape.heads, shape.q_blocks, steps),
            where,
            operands,
            [(q.shape, q.dtype, (1, 1, bq, q.shape[-1]), lambda t: (t.b, t.h, t.q, 0))],
            [pltpu.VMEM((bq, q.shape[-1]), jnp.float32)],
            table,
            semantics=("parallel", "parallel", "parallel", "arbitrary"),
        )[0]

    def kv_gradient():
        swap = lambda x: x.swapaxes(2, 3)
        table, row, steps = _table(swap(some), swap(every), shape)

        def head(group, n):
            return group * shape.repeat + _div(n, steps)

        def where(ids, entries):
            b, group, ki, n = ids
            h = head(group, n)
            return _Tile(b, h, entries[row(b, h, ki) + 1 + _rem(n, steps)] >> 1, ki)

        def body(*refs):
            entries, reader, ins, (dk_ref, dv_ref), (dk, dv) = read(refs, 2)
            ids = [pl.program_id(axis) for axis in range(4)]
            tile, n = where(ids, entries), ids[3]
            start = row(ids[0], head(ids[1], n), ids[2])

            @pl.when(n == 0)
            def _():
                dk[...] = jnp.zeros_like(dk)
                dv[...] = jnp.zeros_like(dv)

            def step(masked):
                values = load(ins)
                p, ds, _ = _weights(reader, tile, masked, *values)
                dv[...] += _dot(p.astype(values[3].dtype), values[3], (1, 0))
                dk[...] += _dot(ds.astype(values[0].dtype), clean(values[0]), (1, 0))

            _visit(step, _rem(n, steps) < entries[start], entries[start + 1 + _rem(n, steps)])

            @pl.when(n == steps * shape.repeat - 1)
            def _():
                dk_ref[0, 0] = (dk[...] * setting.scale).astype(dk_ref.dtype)
                dv_ref[0, 0] = dv[...].astype(dv_ref.dtype)

        place = lambda t: (t.b, _div(t.h, shape.repeat), t.k, 0)
        return launch(
            body,
            "eqxgen_attention_backward_kv",
            (shape.batch, shape.kv_heads, shape.kv_blocks, steps * shape.repeat),
            where,
            operands,
            [(x.shape, x.dtype, (1, 1, bk, x.shape[-1]), place) for x in (k, v)],
            [pltpu.VMEM((bk, x.shape[-1]), jnp.float32) for x in (k, v)],
            table,
            semantics=("parallel", "parallel", "parallel", "arbitrary"),
        )

    def bias_gradient():
        alibi = isinstance(extras.bias, ALiBi)
        b, h, t, s = (*extras.bias.slopes.shape, 1, 1) if alibi else extras.bias.shape
        lib: Any = np if isinstance(some, np.ndarray) else jnp
        flags = lib.where(some, lib.where(every, 2, 1), 0).astype(np.int32)
        if math.prod(flags.shape) > MOST_ENTRIES:
            flags = flags.max((0, 1), keepdims=True) - (flags.max((0, 1), keepdims=True) != flags.min((0, 1), keepdims=True)) * (
                flags.max((0, 1), keepdims=True) == 2
            )
        sizes = (shape.batch // b, shape.heads // h, shape.q_blocks if t == 1 else 1, shape.kv_blocks if s == 1 else 1)

        def where(ids, entries):
            bi, hi, qi, ki, n = ids
            n, dk = _div(n, sizes[3]), _rem(n, sizes[3])
            n, dq = _div(n, sizes[2]), _rem(n, sizes[2])
            db, dh = _div(n, sizes[1]), _rem(n, sizes[1])
            return _Tile(bi if b > 1 else db, hi if h > 1 else dh, qi + dq, ki + dk)

        def body(*refs):
            entries, reader, ins, (db_ref,), _ = read(refs, 1)
            ids = [pl.program_id(axis) for axis in range(5)]
            tile = where(ids, entries)

            @pl.when(ids[4] == 0)
            def _():
                db_ref[...] = jnp.zeros_like(db_ref)

            def step(masked):
                _, _, ds = _weights(reader, tile, masked, *load(ins))
                if alibi:
                    i, j = reader.positions(tile)
                    ds = ds * -jnp.abs(i + reader.scalars[-1 - (extras.seeds is not None)][_first(extras.bias.offset, tile.b)] - j).astype(
                        jnp.float32
                    )
                ds = ds.T
                db_ref[0, 0] += ds.sum(0, keepdims=True) if t == 1 else ds

            fb, fh = flags.shape[:2]
            at = ((tile.b if fb > 1 else 0) * fh + (tile.h if fh > 1 else 0)) * flags.shape[2] + tile.q
            flag = entries[at * flags.shape[3] + tile.k]
            _visit(step, flag > 0, flag)

        t_pad, s_pad = (1 if t == 1 else q.shape[2]), (bk if s == 1 else k.shape[2])
        block = (1, 1, 1 if t == 1 else bq, bk)
        grid = (b, h, 1 if t == 1 else shape.q_blocks, 1 if s == 1 else shape.kv_blocks, math.prod(sizes))
        place = lambda tile: (tile.b if b > 1 else 0, tile.h if h > 1 else 0, 0 if t == 1 else tile.q, 0 if s == 1 else tile.k)
        dbias = launch(
            body,
            "eqxgen_attention_backward_bias",
            grid,
            where,
            operands,
            [((b, h, t_pad, s_pad), jnp.float32, block, place)],
            [],
            jnp.asarray(flags),
            semantics=("parallel", "parallel", "parallel", "parallel", "arbitrary"),
        )[0]
        dbias = dbias.sum(3, keepdims=True) if s == 1 else dbias[..., :s]
        if alibi:
            return dbias.reshape(b, h).astype(extras.bias.slopes.dtype)
        return dbias[:, :, :t].astype(extras.bias.dtype)

    dq = q_gradient()[:, :, : shape.q_seq]
    dk, dv = (x[:, :, : shape.kv_seq] for x in kv_gradient())
    return (dq, dk, dv, bias_gradient()) if with_bias else (dq, dk, dv)
