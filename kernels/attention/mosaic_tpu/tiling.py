"""How a TPU kernel cuts a problem into tiles."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LANES = 128
FORWARD_BLOCK, BACKWARD_BLOCK = 512, 256


@dataclasses.dataclass(frozen=True)
class Tile:
    """The tile at hand: example, head, block of queries, block of keys."""

    b: Any
    h: Any
    q: Any
    k: Any


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of one pass."""

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


@dataclasses.dataclass(frozen=True)
class Operand:
    """An array, the shape of the block that a tile needs of it, and the place of that block by tile, counted in blocks.

    Without a block the kernel gets the whole array. `memory` is where the kernel finds it: None is the vector memory.
    """

    array: Any
    block: tuple[int, ...] | None = None
    place: Callable[[Tile], tuple] | None = None
    memory: Any = None


@dataclasses.dataclass(frozen=True)
class Output:
    """The shape and dtype of a result, and its block as in `Operand`."""

    shape: tuple[int, ...]
    dtype: Any
    block: tuple[int, ...]
    place: Callable[[Tile], tuple]


def shape_of(q, k, v, most: int) -> Shape:
    """The sizes for blocks of at most `most` positions, fewer where a row of q, k or v is wide."""
    widest = max(q.shape[-1], v.shape[-1]) * (2 if q.dtype == jnp.float32 else 1)
    most = most if widest <= 256 else most // 2

    def block(seq: int) -> int:
        count = -(-seq // most)
        return -(-seq // (count * LANES)) * LANES

    return Shape(q.shape[0], q.shape[2], k.shape[2], q.shape[1], k.shape[1], block(q.shape[1]), block(k.shape[1]))


def heads_second(*arrays):
    """(batch, seq, heads, dim) as (batch, heads, seq, dim), the layout of the kernels, and back."""
    return [jnp.swapaxes(x, 1, 2) for x in arrays]


def queries(x, shape: Shape) -> Operand:
    """(b, heads, q_seq, dim), padded and cut along the queries."""
    return Operand(pad(x, 2, shape.q_block), (1, 1, shape.q_block, x.shape[3]), lambda t: (t.b, t.h, t.q, 0))


def keys(x, shape: Shape) -> Operand:
    """(b, kv_heads, kv_seq, dim), padded and cut along the keys; a query head reads its key head."""
    return Operand(
        pad(x, 2, shape.kv_block), (1, 1, shape.kv_block, x.shape[3]), lambda t: (t.b, div(t.h, shape.repeat), t.k, 0)
    )


def rows(x, shape: Shape) -> Operand:
    """(b, heads, q_seq), one number per query, laid along lanes."""
    return Operand(pad(x[:, :, None, :], 3, shape.q_block), (1, 1, 1, shape.q_block), lambda t: (t.b, t.h, 0, t.q))


def like(operand: Operand, dtype) -> Output:
    """A result placed as an operand."""
    assert operand.block is not None
    assert operand.place is not None
    return Output(operand.array.shape, dtype, operand.block, operand.place)


def pad(x, axis: int, block: int):
    """`x` with zeros up to a multiple of the block."""
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, -x.shape[axis] % block)
    return jnp.pad(x, missing)


def div(a, b: int):
    """`a // b` of numbers that are not negative."""
    # Python's `//` rounds down, for which Pallas asks the device of the process, not the one it compiles for.
    return a if b == 1 else jax.lax.div(a, jnp.int32(b))


def rem(a, b: int):
    """`a % b` of numbers that are not negative."""
    return jnp.int32(0) if b == 1 else jax.lax.rem(a, jnp.int32(b))
