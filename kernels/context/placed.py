"""A mask of whole sequences, as the mask of a chunk of queries and a chunk of keys."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..masks import BlockSparse, Causal, Dense, Lengths, Mask, PrefixLM, Segments
from ..masks.base import And, Or


@functools.partial(jax.tree_util.register_dataclass, data_fields=("mask", "query_start", "key_start"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Placed(Mask):
    """A mask whose position 0 is query `query_start` and key `key_start` of another; both are (b,) int32."""

    mask: Mask
    query_start: Any
    key_start: Any

    @property
    def axes(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return ("b", "b", *self.mask.axes)

    def arrays(self):
        return (self.query_start, self.key_start, *self.mask.arrays())

    def replace(self, arrays):
        return Placed(self.mask.replace(arrays[2:]), *arrays[:2])

    def allowed(self, i, j, query_start, key_start, *arrays):
        return self.mask.allowed(i + query_start, j + key_start, *arrays)

    def block_bounds(self, i0, i1, j0, j1, query_start, key_start, *spans):
        (i_low, i_high), (j_low, j_high) = query_start, key_start
        return self.mask.block_bounds(i0 + i_low, i1 + i_high, j0 + j_low, j1 + j_high, *spans)


def placed(mask: Mask, query_start, key_start, sizes: tuple[int, int], cut: Callable[[str, Any], Any]) -> Mask:
    """The mask of a chunk. Masks that all backends know become such masks again, without `Placed`.

    Args:
        mask: of whole sequences, bound to the call.
        query_start, key_start: the positions of the chunk's first query and key, int32 scalars.
        sizes: the numbers of its queries and keys.
        cut: `cut(axes, array)` is a chunk's part of an array of the mask.
    """
    if isinstance(mask, (And, Or)):
        both = (placed(part, query_start, key_start, sizes, cut) for part in (mask.left, mask.right))
        return type(mask)(*both)
    if isinstance(mask, Causal):
        return Causal(_plus(mask.offset, query_start - key_start))
    if isinstance(mask, Lengths):
        return Lengths(_plus(mask.query, -query_start), _plus(mask.key_value, -key_start))
    if isinstance(mask, PrefixLM):
        return Causal(_plus(0, query_start - key_start)) | Lengths(sizes[0], _plus(mask.length, -key_start))
    if isinstance(mask, BlockSparse):
        # Kernels have no look-up at traced positions.
        i, j = (start + jnp.arange(size, dtype=jnp.int32) for start, size in zip((query_start, key_start), sizes))
        return Dense(mask.allowed(i.reshape(1, 1, -1, 1), j.reshape(1, 1, 1, -1)))
    own = mask.replace(tuple(x if isinstance(x, int) else cut(axes, x) for axes, x in zip(mask.axes, mask.arrays())))
    if isinstance(mask, (Dense, Segments)):
        return own
    return Placed(own, _plus(0, query_start), _plus(0, key_start))


def _plus(number, start) -> jax.Array:
    """(b,) int32: a number of each example, or of all, and a scalar."""
    return jnp.reshape(jnp.asarray(number, np.int32) + start, (-1,))
