"""A `BlockSparse` mask inside a kernel."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.experimental.pallas as pl
import jax.numpy as jnp
import numpy as np

from ...masks import And, BlockSparse, Mask, Or
from ...masks.base import parts
from .tiling import SIDE, pad

FINEST = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Stripes(Mask):
    """A `BlockSparse` whose rows are written out along the keys, so that a tile reads each of its few rows as a
    vector.
    """

    stripes: Any
    block: int
    axes: ClassVar[tuple[str, ...]] = ("pattern",)

    def arrays(self):
        return (self.stripes,)

    def allowed(self, i, j, at):
        ref, tile, reader = at
        queries = i.shape[1 if reader.flip else 0]
        keys = j.shape[0 if reader.flip else 1]
        first = _over(tile.i, self.block)
        row = _over(i, self.block)
        allowed = i < 0
        for turn in range(min(ref.shape[0], (queries - 2) // self.block + 2)):
            n = jnp.minimum(first + turn, ref.shape[0] - 1)
            seen = reader.along(ref.at[n, pl.ds(tile.j, keys)], i.shape, queries=False)
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
    """Whether there is a pattern in a mask as `in_kernel` gives it."""
    return any(isinstance(part, Stripes) for part in parts(mask))


def too_fine(mask: Any) -> BlockSparse | None:
    """A pattern of blocks so small that a tile would read too many of its rows, if there is one."""
    return next((part for part in parts(mask) if isinstance(part, BlockSparse) and part.block < FINEST), None)


def _stripes(mask: BlockSparse):
    matrix = jnp.asarray(mask.pattern.matrix.astype(np.int32))
    return pad(jnp.repeat(matrix, mask.block, axis=1), 1, SIDE)


def _over(x, divisor: int):
    """`x // divisor` of integers that are not negative."""
    shift = divisor.bit_length() - 1
    if divisor == 1 << shift:
        return jax.lax.shift_right_logical(x, jnp.full_like(x, shift))
    return jax.lax.div(x, jnp.full_like(x, divisor))
