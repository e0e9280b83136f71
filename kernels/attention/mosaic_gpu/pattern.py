"""A `BlockSparse` mask inside a kernel: the rows of its pattern as vectors over the keys."""

import dataclasses
from typing import Any, ClassVar

import jax.experimental.pallas as pl
import jax.numpy as jnp
import numpy as np

from ..._blocks import div_array, pad
from ...masks import And, BlockSparse, Mask, Or
from ...masks.base import parts
from .tiling import SIDE

FINEST = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Stripes(Mask):
    """A `BlockSparse` with its rows repeated along the keys, so that a tile reads each of its few rows as a vector."""

    stripes: Any
    block: int
    axes: ClassVar[tuple[str, ...]] = ("pattern",)

    def arrays(self):
        return (self.stripes,)

    def allowed(self, i, j, at):
        ref, tile, scores = at
        queries = i.shape[1 if scores.flip else 0]
        keys = j.shape[0 if scores.flip else 1]
        first = div_array(tile.i, self.block)
        row = div_array(i, self.block)
        allowed = i < 0
        for turn in range(min(ref.shape[0], (queries - 2) // self.block + 2)):
            n = jnp.minimum(first + turn, ref.shape[0] - 1)
            seen = scores.along(ref.at[n, pl.ds(tile.j, keys)], i.shape, queries=False)
            allowed = allowed | ((row == n) & (seen != 0))
        return allowed


def in_kernel(mask: Any) -> Any:
    """The mask with every `BlockSparse` in it as `Stripes`."""
    if isinstance(mask, BlockSparse):
        return Stripes(_stripes(mask), mask.block)
    if isinstance(mask, (And, Or)):
        return type(mask)(in_kernel(mask.left), in_kernel(mask.right))
    return mask


def holds_pattern(mask: Any) -> bool:
    """True if a mask from `in_kernel` has a pattern."""
    return any(isinstance(part, Stripes) for part in parts(mask))


def too_fine(mask: Any) -> BlockSparse | None:
    """A pattern of blocks so small that a tile would read too many of its rows, or None."""
    return next((part for part in parts(mask) if isinstance(part, BlockSparse) and part.block < FINEST), None)


def _stripes(mask: BlockSparse):
    matrix = jnp.asarray(mask.pattern.matrix.astype(np.int32))
    return pad(jnp.repeat(matrix, mask.block, axis=1), 1, SIDE)
