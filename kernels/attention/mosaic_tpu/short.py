"""Sequences of one tile: several heads in a step of the grid, in one straight program without sums in scratch memory.

The products of a head are issued ahead of the softmax of the one before it.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._blocks import div
from ...masks import BlockSparse
from ...masks.base import parts
from ..problem import Extras, Setting, shape_of
from . import blocks, tiling
from .launch import Pass, Refs, launch
from .schedule import bounds_of
from .scores import LOW, ScoreOperands, dot, finite, flag, inverse, marks, score_gradients
from .tiling import Output, Tile, Tiled

LEAST = 8  # rows of a tile: those of a register


@dataclasses.dataclass(frozen=True)
class OneTile(Tiled):
    """Sizes of a pass of one tile a head, `fold` query heads in a step."""

    fold: int

    @property
    def key_heads(self) -> int:
        """Key heads of a step."""
        return max(1, self.fold // self.repeat)


def one_tile(q, k, v, extras: Extras, *, whole_groups: bool = False) -> OneTile | None:
    """The sizes of a call that fits, or None; `whole_groups`: a step has all query heads of its key heads."""
    shape = shape_of(q, k, v)
    # The compiler takes no product with a single row.
    rows, columns = max(shape.q_seq, LEAST), max(shape.kv_seq, LEAST)
    if max(rows, columns) > blocks.LONGEST or any(isinstance(part, BlockSparse) for part in parts(extras.mask)):
        return None
    wide = sum(dim + -dim % tiling.LANES for dim in (shape.dim, shape.v_dim))
    most = min(
        blocks.MOST_HEADS,
        blocks.MOST_PAIRS // (rows * (columns + -columns % tiling.LANES)),
        blocks.MOST_BYTES // (4 * (rows + columns) * wide * q.dtype.itemsize),
    )
    fits = lambda n: shape.heads % n == 0 and (n % shape.repeat == 0 or (shape.repeat % n == 0 and not whole_groups))
    fold = max((n for n in range(1, most + 1) if fits(n)), default=0)
    sizes = {"q_block": rows, "kv_block": columns, "part": columns, "group": rows}
    return OneTile(**vars(shape), **sizes, fold=fold) if fold else None


def attend(q, k, v, extras: Extras, setting: Setting, shape: OneTile, *, interpret: Any):
    """(out, logsumexp) as `forward.attend` gives them."""
    stored = tiling.layout(q, v)
    operands = [tiling.queries(q, shape, stored, shape.fold)]
    operands += [tiling.keys(x, shape, stored, shape.key_heads) for x in (k, v)]
    work = _work(shape, stored, extras, setting, operands, flip=False, interpret=interpret)
    masked, guarded = _masked(work)

    def kernel(refs: Refs):
        out, lse = refs.outs

        def product(r: int):
            places = (r, shape.dim), (r // shape.repeat, shape.dim), (r // shape.repeat, shape.v_dim)
            q, k, v = (stored.head(ref, *place)[...] for ref, place in zip(refs.operands, places))
            if not guarded:
                return dot(q, k, (1, 1)), v, None
            return dot(flag(q), k, (1, 1)), finite(v), marks(k, v)

        def finish(r: int, s, v, marked):
            tile = _of_head(refs.tile, r)
            s, _ = refs.scores.logits(s, tile)
            s = refs.scores.masked(s, marked, tile) if masked else s
            top = jnp.maximum(jnp.max(s, axis=1, keepdims=True), LOW)
            p = jnp.exp2(s - top)
            total = jnp.sum(p, axis=1, keepdims=True)
            result = dot(refs.scores.dropped(p, tile).astype(v.dtype), v, (1, 0))
            safe = jnp.where(total == 0.0, 1.0, total) if masked else total
            stored.head(out, r, shape.v_dim)[...] = (result * inverse(safe, out.dtype)).astype(out.dtype)
            numbers = jnp.where(total == 0.0, -jnp.inf, top * math.log(2.0) + jnp.log(total))
            lse[r] = jnp.broadcast_to(numbers, (numbers.shape[0], tiling.LANES)).T[0:1]

        _in_turn(shape.fold, product, finish)

    side = (1, shape.q_block)
    outs = [
        _wide(shape, stored, shape.heads, shape.fold, shape.q_block, shape.v_dim, q.dtype),
        Output(
            (shape.batch, shape.heads, *side),
            jnp.float32,
            (None, shape.fold, *side),
            lambda t: (t.b, div(t.h, shape.fold), 0, 0),
        ),
    ]
    out, lse = _launch(work, shape, "short_forward", kernel, outs)
    return stored.load(out, shape.heads, shape.q_seq), lse[:, :, 0, : shape.q_seq]


def gradients(q, k, v, extras: Extras, setting: Setting, dout, numbers, shape: OneTile, *, interpret: Any):
    """Cotangents of q, k and v; `numbers`: logsumexp in powers of two, and delta."""
    stored = tiling.layout(q, v)
    operands = [tiling.queries(x, shape, stored, shape.fold) for x in (q, dout)]
    operands[1:1] = [tiling.keys(x, shape, stored, shape.key_heads) for x in (k, v)]
    operands += [tiling.rows(shape, *numbers, heads=shape.fold)]
    work = _work(shape, stored, extras, setting, operands, flip=True, interpret=interpret)
    masked, _ = _masked(work)

    def kernel(refs: Refs):
        *wide, rows = refs.operands
        dq, dk, dv = refs.outs
        sums: dict[int, Any] = {}

        def product(r: int):
            at = r // shape.repeat
            places = (r, shape.dim), (at, shape.dim), (at, shape.v_dim), (r, shape.v_dim)
            q, k, v, dout = (stored.head(ref, *place)[...] for ref, place in zip(wide, places))
            # A row that sees no key may have any cotangent; of others, delta is NaN where one is not finite.
            dout = finite(dout) if masked else dout
            return dot(k, q, (1, 1)), dot(v, dout, (1, 1)), q, k, dout

        def finish(r: int, s, dp, q, k, dout):
            tile, at = _of_head(refs.tile, r), r // shape.repeat
            p, ds, _ = score_gradients(refs.scores, tile, masked, s, dp, rows[r, 0:1], rows[r, 1:2])
            ds, some = ds.astype(q.dtype), finite if masked else lambda x: x
            stored.head(dq, r, shape.dim)[...] = (dot(ds, some(k), (0, 0)) * setting.scale).astype(dq.dtype)
            both = dot(ds, some(q), (1, 0)), dot(p.astype(dout.dtype), dout, (1, 0))
            sums[at] = both if r % shape.repeat == 0 else [x + y for x, y in zip(sums[at], both)]
            if (r + 1) % shape.repeat == 0:
                of_key, of_value = sums[at]
                stored.head(dk, at, shape.dim)[...] = (of_key * setting.scale).astype(dk.dtype)
                stored.head(dv, at, shape.v_dim)[...] = of_value.astype(dv.dtype)

        _in_turn(shape.fold, product, finish)

    keys = shape.kv_heads, shape.key_heads, shape.kv_block
    outs = [
        _wide(shape, stored, shape.heads, shape.fold, shape.q_block, shape.dim, q.dtype),
        _wide(shape, stored, *keys, shape.dim, q.dtype),
        _wide(shape, stored, *keys, shape.v_dim, q.dtype),
    ]
    dq, dk, dv = _launch(work, shape, "short_backward", kernel, outs)
    both = (stored.load(x, shape.kv_heads, shape.kv_seq) for x in (dk, dv))
    return stored.load(dq, shape.heads, shape.q_seq), *both


def _work(shape: OneTile, stored, extras: Extras, setting: Setting, operands, *, flip: bool, interpret: Any) -> Pass:
    prepared = ScoreOperands(extras, shape, flip=flip, heads=shape.fold)
    return Pass(shape, stored, setting, extras, prepared, operands, *bounds_of(extras.mask, shape), flip, interpret)


def _masked(work: Pass) -> tuple[bool, bool]:
    """True if some pair or padding may be masked; and if some query may not see some key."""
    masked = not (isinstance(work.full, np.ndarray) and work.full.all())
    return masked, masked and work.prepared.mask is not None


def _in_turn(count: int, product, finish) -> None:
    """`finish` of each head, with `product` of the next issued ahead of it."""
    ahead = product(0)
    for r in range(count):
        now = ahead
        if r + 1 < count:
            ahead = product(r + 1)
        finish(r, *now)


def _of_head(tile: Tile, r: int) -> Tile:
    return dataclasses.replace(tile, h=tile.h + r, turn=r)


def _launch(work: Pass, shape: OneTile, name: str, kernel, outs) -> Any:
    where = lambda ids, entries: Tile(ids[0], ids[1] * shape.fold, 0, 0)
    grid, entries = (shape.batch, shape.heads // shape.fold), jnp.zeros(1, jnp.int32)  # every tile is visited
    return launch(work, name, kernel, where, grid=grid, entries=entries, outs=outs, scratch=[], sums=0)


def _wide(shape: OneTile, stored, heads: int, some: int, rows: int, dim: int, dtype: Any) -> Output:
    """A result of so many heads, `some` of them in a step."""
    place = lambda t: stored.place(t.b, div(t.h, shape.fold), 0)
    return Output(stored.shape(shape.batch, rows, heads, dim), dtype, stored.block(some, rows, dim), place, wide=True)
