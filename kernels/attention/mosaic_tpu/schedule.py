"""Schedules in scalar memory, which the grid's index maps read (scalar prefetch)."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from ...masks.base import known
from .. import schedule as shared
from ..schedule import Schedule
from .tiling import Tiled

# Scalar memory is small; a longer schedule is shared by all examples and heads.
MOST_ENTRIES = 1 << 15
Pieces = tuple[tuple[int, bool], ...]


@dataclasses.dataclass(frozen=True)
class Plan(Schedule):
    """A schedule whose entry has below the column a bit for each piece of the block that needs no mask, one for each
    active piece, and 1 if the block needs the mask.

    Attributes:
        whole: some block needs no mask, as far as known while tracing.
        partial: some block needs it.
        mixed: some block needs it for a few of its pieces.
        kinds: the pieces (number, masked) of kinds of blocks that need the mask, each kind one straight program.
        looped: blocks of other kinds are computed one piece a turn.
    """

    pieces: int
    whole: bool
    partial: bool
    mixed: bool
    kinds: tuple[Pieces, ...]
    looped: bool

    def column(self, entry):
        """The column of an entry."""
        return entry >> (2 * self.pieces + 1)

    def active(self, entry, pieces):
        """The bits of some pieces, given as bits, that are active."""
        return (entry >> 1) & pieces

    def run(self, inside, entry, whole, pieces) -> None:
        """`whole()` for a block that needs no mask, `pieces(some)` for the active pieces of one that does."""
        if self.whole:
            pl.when(inside & (entry & 1 == 0))(whole)
        rest = inside & (entry & 1 == 1)
        for kind in self.kinds:
            word = sum(1 << n | (not masked) << n + self.pieces for n, masked in kind)
            # Beside the loop a kind is its active pieces alone, all of which are computed with the mask.
            bits = self.pieces if self.looped else 2 * self.pieces
            same = entry & ((2 << bits) - 1) == 2 * word + 1
            pl.when(inside & same)(functools.partial(pieces, kind))
            rest = rest & ~same
        if not self.looped:
            return

        def turn(n, _):
            active, clear = ((entry >> (n + at + 1)) & 1 == 1 for at in (0, self.pieces))
            if self.mixed:
                pl.when(clear)(lambda: pieces([(n, False)]))
                active = active & ~clear
            pl.when(active)(lambda: pieces([(n, True)]))

        @pl.when(rest)
        def _():
            if self.pieces == 1:
                pieces([(0, True)])
            else:
                jax.lax.fori_loop(0, self.pieces, turn, None)


def bounds_of(mask: Any, shape: Tiled) -> tuple[Any, Any]:
    """`schedule.block_bounds` of each piece, as (b, h, q_blocks, kv_blocks, pieces)."""
    active, full = shared.block_bounds(mask, shape.q_seq, shape.kv_seq, shape.group, shape.part)
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    rows, columns = shape.q_blocks * (shape.q_block // shape.group), shape.kv_blocks * shape.parts

    def by_block(x, fill: bool):
        x = lib.pad(x, [(0, 0)] * 3 + [(0, columns - x.shape[3])])
        # No piece beyond the last query is computed, and none needs a mask.
        x = lib.pad(x, [(0, 0)] * 2 + [(0, rows - x.shape[2]), (0, 0)], constant_values=fill)
        x = x.reshape(*x.shape[:2], shape.q_blocks, -1, shape.kv_blocks, shape.parts)
        return x.swapaxes(3, 4).reshape(*x.shape[:3], shape.kv_blocks, -1)

    return by_block(active, False), by_block(full, True)


def known_bounds(mask: Any, shape: Tiled) -> tuple[np.ndarray, np.ndarray]:
    """`bounds_of` of a mask that is known while tracing and allows all that this one does."""
    if (outer := known(mask)) is not None:
        return bounds_of(outer, shape)
    every = np.ones((1, 1, shape.q_blocks, shape.kv_blocks, shape.parts * (shape.q_block // shape.group)), bool)
    return every, every


def by_keys(x, spans: int):
    """(b, h, q_blocks, kv_blocks, pieces) as (b, h, spans * kv_blocks, q_blocks / spans, pieces): a row for each span
    of queries and block of keys.
    """
    lib: Any = np if isinstance(x, np.ndarray) else jnp
    b, h, rows, columns, parts = x.shape
    x = lib.pad(x, [(0, 0)] * 2 + [(0, -rows % spans)] + [(0, 0)] * 2)
    return x.reshape(b, h, spans, -1, columns, parts).swapaxes(3, 4).reshape(b, h, spans * columns, -1, parts)


def schedule(active, full, outer: tuple[np.ndarray, np.ndarray], straight: int = 0) -> Plan:
    """The schedule of the active blocks in each row, of a length that fits.

    Args:
        outer: `known_bounds`.
        straight: the most pieces, of all kinds of blocks that need the mask, for which `Plan.kinds` are made. The code
            grows with them. They are all kinds of a known mask; of another one, those of `outer`, or the block of which
            all pieces are active.
    """
    if _too_long(active.any(-1).shape):
        active, full = _shared(active, full)
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    count = active.shape[-1]
    assert 2 * count + 1 + active.shape[-2].bit_length() < 32, "an entry has 31 bits"
    pieces = lib.concatenate([active, active & full], -1)
    bits: Any = sum(pieces[..., n].astype(np.int32) << n for n in range(2 * count))
    some, every = active.any(-1), full.all(-1)
    found, counts = shared.entries(some, every, max(1, int(outer[0].any(-1).sum(-1).max())))
    found = (((found >> 1) << 2 * count | lib.take_along_axis(bits, found >> 1, axis=-1)) << 1) | (found & 1)
    table = jnp.asarray(lib.concatenate([counts[..., None], found], -1)).reshape(-1)
    states = some & every, some & ~every, (active & full & ~every[..., None]).any(-1)
    words = np.unique(bits[states[1]]).tolist() if lib is np else _likely(*outer)
    kinds = tuple(_pieces(word, count) for word in words)
    kinds = kinds if sum(map(len, kinds)) <= straight else ()
    whole, partial, mixed = (lib is jnp or bool(x.any()) for x in states)
    return Plan(table, found.shape, count, whole, partial, mixed, kinds, partial and (lib is jnp or not kinds))


def _likely(active, full) -> list[int]:
    """The active pieces, as bits, of the blocks that need this mask, or of a block where none does; none of blocks of
    one piece, which need no loop.
    """
    if (count := active.shape[-1]) == 1:
        return []
    bits: Any = sum(active[..., n].astype(np.int32) << n for n in range(count))
    return np.unique(bits[active.any(-1) & ~full.all(-1)]).tolist() or [(1 << count) - 1]


def _pieces(word: int, count: int) -> Pieces:
    """The active pieces of a block, those that need the mask first: the last softmax has no product beside it."""
    pieces = [(n, not (word >> n + count) & 1) for n in range(count) if word >> n & 1]
    return tuple(sorted(pieces, key=lambda x: not x[1]))


def flags(active, full) -> Any:
    """`schedule.flags` of the blocks, of a length that fits."""
    if _too_long(active.any(-1).shape):
        active, full = _shared(active, full)
    return shared.flags(active.any(-1), full.all(-1))


def _too_long(shape: tuple[int, ...]) -> bool:
    return math.prod(shape) > MOST_ENTRIES and shape[0] * shape[1] > 1


def _shared(active, full):
    return active.any((0, 1), keepdims=True), full.all((0, 1), keepdims=True)
