"""A `BlockSparse` mask inside a kernel: one bit for each block of its pattern, in scalar memory."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..._blocks import div_array
from ...masks import And, BlockSparse, Mask, Or
from ...masks.base import parts
from .tiling import Tile, Tiled

WORD = 32
# Bytes of the rows of one block of queries; the pipeline holds two.
MOST_BYTES = 1 << 17


@dataclasses.dataclass(frozen=True, eq=False)
class Bits(Mask):
    """A `BlockSparse` for a kernel: `words[n]` holds the pattern's rows that the n-th block of queries reads, 32
    columns to a word.
    """

    words: np.ndarray
    block: int
    shape: Tiled
    axes: ClassVar[tuple[str, ...]] = ("pattern",)

    def arrays(self):
        return (self.words,)

    def allowed(self, i, j, at: tuple[Any, Tile]):
        # First the words of each query's row, then its bit for each key.
        ref, tile = at
        row = div_array(i, self.block) - div_array(tile.q * self.shape.q_block, self.block)
        column = div_array(j, self.block)
        first = div_array(div_array((tile.k * self.shape.parts + tile.part) * self.shape.part, self.block), WORD)
        bits = jnp.int32(0)
        for turn in range(_span(self.shape.kv_blocks * self.shape.parts, self.shape.part, self.block * WORD)):
            add = lambda r, words, w=first + turn: jnp.where(row == r, ref[0, r, w], words)
            count = self.words.shape[1]
            words = jax.lax.fori_loop(0, count, add, jnp.zeros(i.shape, jnp.int32), unroll=count <= WORD)
            bits = jnp.where(div_array(column, WORD) == first + turn, words, bits)
        return jax.lax.shift_right_logical(*jnp.broadcast_arrays(bits, column & (WORD - 1))) & 1 == 1


def in_kernel(mask: Any, shape: Tiled) -> Any:
    """The mask with every `BlockSparse` in it as `Bits`."""
    if isinstance(mask, BlockSparse):
        return Bits(_words(mask, shape), mask.block, shape)
    if isinstance(mask, (And, Or)):
        return type(mask)(in_kernel(mask.left, shape), in_kernel(mask.right, shape))
    return mask


def too_fine(mask: Any, shape: Tiled) -> BlockSparse | None:
    """A pattern with so many blocks that its bits do not fit, or None."""
    return next(
        (part for part in parts(mask) if isinstance(part, BlockSparse) and _bytes(part, shape) > MOST_BYTES), None
    )


def _bytes(mask: BlockSparse, shape: Tiled) -> int:
    rows = _span(shape.q_blocks, shape.q_block, mask.block)
    words = -(-shape.kv_seq // (mask.block * WORD))
    return 4 * (rows + -rows % 8) * (words + -words % 128)


def _words(mask: BlockSparse, shape: Tiled) -> np.ndarray:
    matrix = mask.pattern.matrix
    rows = _span(shape.q_blocks, shape.q_block, mask.block)
    first = np.arange(shape.q_blocks) * shape.q_block // mask.block
    spare = _span(shape.kv_blocks * shape.parts, shape.part, mask.block * WORD) * WORD
    padded = np.pad(matrix, ((0, rows), (0, spare + -matrix.shape[1] % WORD)))
    bits = padded[np.minimum(first[:, None] + np.arange(rows), len(padded) - 1)]
    return np.packbits(bits, axis=-1, bitorder="little").view("<u4").astype(np.uint32).view(np.int32)


def _span(count: int, side: int, unit: int) -> int:
    """The most units that one of `count` consecutive pieces of length `side` reaches into."""
    first = np.arange(count, dtype=np.int64) * side
    return int(((first + side - 1) // unit - first // unit).max()) + 1
