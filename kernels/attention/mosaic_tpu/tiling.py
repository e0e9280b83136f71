"""Block sizes, and the blocks of each operand and result."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..._blocks import div, pad, parts
from ..problem import Blocked, Shape
from .blocks import Blocks

LANES = 128


@dataclasses.dataclass(frozen=True)
class Tile:
    """A tile of a kernel: example, head, block of queries, block of keys.

    `part` is a part of the block of keys, `rows` are some of the block's queries, all if None.
    """

    b: Any
    h: Any
    q: Any
    k: Any
    part: Any = 0
    rows: slice | None = None


@dataclasses.dataclass(frozen=True)
class Tiled(Blocked):
    """Sizes of a pass whose blocks of keys have parts of `part` keys."""

    part: int

    @property
    def parts(self) -> int:
        return self.kv_block // self.part

    def keys(self, part) -> Any:
        """The positions of a part in its block of keys."""
        return pl.ds(part * self.part, self.part)


@dataclasses.dataclass(frozen=True)
class Operand:
    """An array, the shape of the block of it that a tile reads, and that block's index by tile.

    Without a block the kernel reads the whole array. `memory` is the memory space; None is vector memory.
    """

    array: Any
    block: tuple[int, ...] | None = None
    place: Callable[[Tile], tuple] | None = None
    memory: Any = None


@dataclasses.dataclass(frozen=True)
class Output:
    """The shape and dtype of a result, and its block as in `Operand`; `once`: without a second buffer for the block."""

    shape: tuple[int, ...]
    dtype: Any
    block: tuple[int, ...]
    place: Callable[[Tile], tuple]
    once: bool = False


def widest(q, v) -> int:
    """The head_dim that decides the blocks: the greater of both, twice as wide in float32."""
    return max(q.shape[-1], v.shape[-1]) * (2 if q.dtype == jnp.float32 else 1)


def tiled(shape: Shape, most: Blocks) -> Tiled:
    """The sizes with even blocks and parts of whole lanes, at most those of `most`."""
    q_block, part = even(shape.q_seq, most.q), even(shape.kv_seq, most.part)
    count = min(most.kv // most.part, parts(shape.kv_seq, part))
    return Tiled(**vars(shape), q_block=q_block, kv_block=count * part, part=part)


def even(seq: int, most: int) -> int:
    """The least block of whole lanes that needs no more blocks than one of `most` positions."""
    return LANES * parts(seq, LANES * parts(seq, most))


def groups(block: int, most: int) -> list[slice]:
    """A block of queries in groups of at most so many."""
    side = even(block, most)
    return [slice(at, min(at + side, block)) for at in range(0, block, side)]


def widen(x, width: int):
    """(rows, lanes), equal along lanes, as (rows, width)."""
    return jnp.tile(x, (1, parts(width, LANES)))[:, :width]


def heads_second(*arrays):
    """(batch, seq, heads, dim) as (batch, heads, seq, dim), the layout of the kernels, and back."""
    return [jnp.swapaxes(x, 1, 2) for x in arrays]


def queries(x, shape: Tiled, heads: int = 1) -> Operand:
    """(b, heads, q_seq, dim), padded and divided along the queries; a block holds so many heads."""
    block = (1, heads, shape.q_block, x.shape[3])
    return Operand(pad(x, 2, shape.q_block), block, lambda t: (t.b, div(t.h, heads), t.q, 0))


def keys(x, shape: Tiled) -> Operand:
    """(b, kv_heads, kv_seq, dim), padded and divided along the keys; a query head reads its key head."""
    block = (1, 1, shape.kv_block, x.shape[3])
    return Operand(pad(x, 2, shape.kv_block), block, lambda t: (t.b, div(t.h, shape.repeat), t.k, 0))


def rows(x, shape: Tiled) -> Operand:
    """(b, heads, q_seq), one number per query, stored along lanes."""
    return Operand(pad(x[:, :, None, :], 3, shape.q_block), (1, 1, 1, shape.q_block), lambda t: (t.b, t.h, 0, t.q))


def like(operand: Operand, dtype) -> Output:
    """A result with the blocks of an operand."""
    assert operand.block is not None
    assert operand.place is not None
    return Output(operand.array.shape, dtype, operand.block, operand.place)
