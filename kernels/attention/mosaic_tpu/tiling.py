"""Block sizes, and the blocks of each operand and result."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..._blocks import div, pad, parts, rem
from ..problem import Blocked, Shape
from .blocks import Blocks

LANES = 128


@dataclasses.dataclass(frozen=True)
class Tile:
    """A tile of a kernel: example, head, block of queries, block of keys.

    `part` is a part of the block of keys, `rows` a `pl.ds` of the block's queries, all if None; `turn` counts the heads
    of a step of the grid.
    """

    b: Any
    h: Any
    q: Any
    k: Any
    part: Any = 0
    rows: Any = None
    turn: int = 0


@dataclasses.dataclass(frozen=True)
class Tiled(Blocked):
    """Sizes of a pass whose blocks have parts of `part` keys and groups of `group` queries.

    A piece is one part for one group; the pieces of a block are counted group by group.
    """

    part: int
    group: int

    @property
    def parts(self) -> int:
        return self.kv_block // self.part

    @property
    def pieces(self) -> int:
        return self.parts * (self.q_block // self.group)

    def keys(self, part) -> Any:
        """The positions of a part in its block of keys."""
        return pl.ds(part * self.part, self.part)

    def piece(self, tile: Tile, number) -> Tile:
        """The part of the keys and the rows of a piece."""
        first = 0 if self.group == self.q_block else div(number, self.parts) * self.group
        return dataclasses.replace(tile, part=rem(number, self.parts), rows=pl.ds(first, self.group))

    def pieces_of(self, part):
        """The pieces that have this part of the keys, as bits."""
        return sum(1 << group * self.parts for group in range(self.q_block // self.group)) << part


@dataclasses.dataclass(frozen=True)
class Layout:
    """Storage of (batch, seq, heads, dim): heads `beside` one another, (batch, seq, heads * dim), or (batch, heads,
    seq, dim).

    The first is a projection's own, and a head of whole lanes is a block of its columns, so that nothing is transposed.
    """

    beside: bool

    def store(self, x, unit: int = 1):
        """An array in this storage, padded along the sequence to a multiple of the unit."""
        x = pad(x, 1, unit)
        return x.reshape(*x.shape[:2], -1) if self.beside else jnp.swapaxes(x, 1, 2)

    def load(self, x, heads: int, seq: int):
        """The inverse of `store`."""
        x = x.reshape(*x.shape[:2], heads, -1) if self.beside else jnp.swapaxes(x, 1, 2)
        return x[:, :seq]

    def summed(self, x, heads: int, each: int):
        """Heads that are sums of so many stored ones that follow one another."""
        if each == 1:
            return x
        if not self.beside:
            return x.reshape(x.shape[0], heads, each, *x.shape[2:]).sum(2)
        # As blocks of columns: an axis of its own for the summands would be laid out anew.
        columns = jnp.split(x, heads * each, axis=2)
        return jnp.concatenate([sum(columns[at : at + each]) for at in range(0, heads * each, each)], axis=2)

    def shape(self, batch: int, seq: int, heads: int, dim: int) -> tuple[int, ...]:
        """The stored shape."""
        return (batch, seq, heads * dim) if self.beside else (batch, heads, seq, dim)

    def block(self, heads: int, rows: int, dim: int) -> tuple[int | None, ...]:
        """A block of so many heads and positions of one example."""
        return (None, rows, heads * dim) if self.beside else (None, heads, rows, dim)

    def place(self, b, head, row) -> tuple:
        """The index of a block."""
        return (b, row, head) if self.beside else (b, head, row, 0)

    def head(self, ref, at, dim: int) -> Any:
        """One head of a block's reference, (rows, dim)."""
        if not self.beside:
            return ref.at[at]
        return ref if ref.shape[1] == dim else ref.at[:, pl.ds(pl.multiple_of(at * dim, dim), dim)]


@dataclasses.dataclass(frozen=True)
class Operand:
    """An array, the shape of the block of it that a tile reads, and that block's index by tile.

    Without a block the kernel reads the whole array. `memory` is the memory space; None is vector memory. `wide`: in
    the storage of a `Layout`.
    """

    array: Any
    block: tuple[int | None, ...] | None = None
    place: Callable[[Tile], tuple] | None = None
    memory: Any = None
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Output:
    """The shape and dtype of a result, and its block as in `Operand`; `once`: without a second buffer for the block."""

    shape: tuple[int, ...]
    dtype: Any
    block: tuple[int | None, ...]
    place: Callable[[Tile], tuple]
    once: bool = False
    wide: bool = False


def widest(q, v) -> int:
    """The head_dim that decides the blocks: the greater of both, twice as wide in float32."""
    return max(q.shape[-1], v.shape[-1]) * (2 if q.dtype == jnp.float32 else 1)


def tiled(shape: Shape, most: Blocks) -> Tiled:
    """The sizes with even blocks, parts and groups of whole lanes, at most those of `most`."""
    q_block, part = even(shape.q_seq, most.q), even(shape.kv_seq, most.part)
    count, group = min(most.kv // most.part, parts(shape.kv_seq, part)), even(q_block, most.group)
    group = q_block if q_block % group else group
    return Tiled(**vars(shape), q_block=q_block, kv_block=count * part, part=part, group=group)


def even(seq: int, most: int) -> int:
    """The least block of whole lanes that needs no more blocks than one of `most` positions."""
    return LANES * parts(seq, LANES * parts(seq, most))


def divisor(count: int, most: int) -> int:
    """The largest divisor of so many queries, of whole lanes and at most `most`; all if that is less than a half."""
    found = max(side for side in range(LANES, max(most, LANES) + 1, LANES) if count % side == 0)
    return found if 2 * found >= min(most, count) else count


def groups(first: Any, count: int, most: int) -> list[Any]:
    """So many queries of a block in groups of at most `most`, each a `pl.ds`."""
    side = even(count, most)
    return [pl.ds(first + at, min(side, count - at)) for at in range(0, count, side)]


def widen(x, width: int):
    """(rows, lanes), equal along lanes, as (rows, width)."""
    return jnp.tile(x, (1, parts(width, LANES)))[:, :width]


def whole_lanes(x):
    """(rows, width) with zeros up to whole lanes: a sum in part of the lanes costs more than their selection."""
    missing = -x.shape[1] % LANES
    return jnp.concatenate([x, jnp.zeros((x.shape[0], missing), x.dtype)], 1) if missing else x


def layout(q, v) -> Layout:
    """The storage of a call: heads beside one another where each has whole lanes."""
    return Layout(q.shape[3] % LANES == 0 and v.shape[3] % LANES == 0)


def along_lanes(x):
    """(rows, lanes), equal along lanes, as (1, rows)."""
    row, lane = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    pieces = [x[at : at + LANES] for at in range(0, x.shape[0], LANES)]
    return jnp.concatenate([jnp.sum(jnp.where(row == lane, y, 0.0), 0, keepdims=True) for y in pieces], 1)


def queries(x, shape: Tiled, stored: Layout, heads: int = 1) -> Operand:
    """(b, q_seq, heads, dim), padded and divided along the queries; a block holds so many heads."""
    block = stored.block(heads, shape.q_block, x.shape[3])
    return Operand(stored.store(x, shape.q_block), block, lambda t: stored.place(t.b, div(t.h, heads), t.q), wide=True)


def keys(x, shape: Tiled, stored: Layout, heads: int = 1) -> Operand:
    """(b, kv_seq, kv_heads, dim), padded and divided along the keys; a query head reads its key head, one of so many in
    a block.
    """
    block = stored.block(heads, shape.kv_block, x.shape[3])
    place = lambda t: stored.place(t.b, div(t.h, shape.repeat * heads), t.k)
    return Operand(stored.store(x, shape.kv_block), block, place, wide=True)


def rows(shape: Tiled, *numbers, heads: int | None = None) -> Operand:
    """Numbers per query, each (b, heads, q_seq), stored along lanes one above the other, of one head or so many."""
    block = (None, heads, len(numbers), shape.q_block)
    place = lambda t: (t.b, div(t.h, heads or 1), 0, t.q)
    return Operand(pad(jnp.stack(numbers, 2), 3, shape.q_block), block, place)
