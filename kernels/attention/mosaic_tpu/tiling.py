"""Block sizes, and the blocks of each operand and result."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ..._blocks import div, pad, parts
from ..problem import Blocked, Shape, blocked

LANES = 128
FORWARD_BLOCK, BACKWARD_BLOCK = 512, 256


@dataclasses.dataclass(frozen=True)
class Tile:
    """A tile of a kernel: example, head, block of queries, block of keys."""

    b: Any
    h: Any
    q: Any
    k: Any


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
    """The shape and dtype of a result, and its block as in `Operand`."""

    shape: tuple[int, ...]
    dtype: Any
    block: tuple[int, ...]
    place: Callable[[Tile], tuple]


def tiled(shape: Shape, dtype, most: int) -> Blocked:
    """The sizes with blocks of at most `most` positions, or half of it for wide head_dims."""
    widest = max(shape.dim, shape.v_dim) * (2 if dtype == jnp.float32 else 1)
    most = most if widest <= 256 else most // 2

    def block(seq: int) -> int:
        return LANES * parts(seq, LANES * parts(seq, most))

    return blocked(shape, block(shape.q_seq), block(shape.kv_seq))


def heads_second(*arrays):
    """(batch, seq, heads, dim) as (batch, heads, seq, dim), the layout of the kernels, and back."""
    return [jnp.swapaxes(x, 1, 2) for x in arrays]


def queries(x, shape: Blocked) -> Operand:
    """(b, heads, q_seq, dim), padded and divided along the queries."""
    return Operand(pad(x, 2, shape.q_block), (1, 1, shape.q_block, x.shape[3]), lambda t: (t.b, t.h, t.q, 0))


def keys(x, shape: Blocked) -> Operand:
    """(b, kv_heads, kv_seq, dim), padded and divided along the keys; a query head reads its key head."""
    block = (1, 1, shape.kv_block, x.shape[3])
    return Operand(pad(x, 2, shape.kv_block), block, lambda t: (t.b, div(t.h, shape.repeat), t.k, 0))


def rows(x, shape: Blocked) -> Operand:
    """(b, heads, q_seq), one number per query, stored along lanes."""
    return Operand(pad(x[:, :, None, :], 3, shape.q_block), (1, 1, 1, shape.q_block), lambda t: (t.b, t.h, 0, t.q))


def like(operand: Operand, dtype) -> Output:
    """A result with the blocks of an operand."""
    assert operand.block is not None
    assert operand.place is not None
    return Output(operand.array.shape, dtype, operand.block, operand.place)
