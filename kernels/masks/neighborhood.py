"""Neighbourhood attention: each query sees a window of a grid that is shifted inward at the border."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .base import Mask

Sizes = tuple[int, ...]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Neighborhood(Mask):
    """Query i sees the `kernel` nearest positions along each axis of a grid, its own among them. Every query has as
    many keys, as at the border the window is shifted inward (Hassani et al. 2023, arXiv:2204.07143, equation 1). With a
    dilation d the positions are those at a distance divisible by d (Hassani and Shi 2022, arXiv:2209.15001, section 3).

    Queries and keys are the positions of one grid of `shape`, in rows. An even kernel has one position more before the
    query than after it.

    Args:
        shape: sizes of the grid's axes, or the length of a sequence.
        kernel: positions along each axis, one number or one for each.
        dilation: distance between them, one number or one for each; kernel * dilation is at most the axis's size.
    """

    shape: Any
    kernel: Any
    dilation: Any = 1
    tables: tuple[Any, ...] | None = None  # see `arrays`

    def __post_init__(self):
        shape = _sizes("shape", self.shape, None)
        kernel, dilation = (_sizes(name, getattr(self, name), len(shape)) for name in ("kernel", "dilation"))
        for size, width, step in zip(shape, kernel, dilation):
            if width * step > size:
                raise ValueError(
                    "masks.Neighborhood: kernel * dilation must be at most the size of its axis: got kernel="
                    f"{width}, dilation={step} for {size} positions"
                )
        for name, value in (("shape", shape), ("kernel", kernel), ("dilation", dilation)):
            object.__setattr__(self, name, value)

    def tree_flatten(self):
        return (self.tables,), (self.shape, self.kernel, self.dilation)

    @classmethod
    def tree_unflatten(cls, fixed, children):
        mask = object.__new__(cls)
        for name, value in zip(("shape", "kernel", "dilation", "tables"), (*fixed, *children)):
            object.__setattr__(mask, name, value)
        return mask

    @property
    def axes(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return ("bq", "bk") * (len(self.shape) + (max(self.dilation) > 1))

    def arrays(self):
        """For each axis the first position that a query sees and the position of a key; with a dilation the classes of
        both, which must be equal.
        """
        if self.tables is not None:
            return self.tables
        found: list[Any] = []
        places = np.indices(self.shape).reshape(len(self.shape), -1)
        for place, first in zip(places, self._firsts()):
            found += [first[place], place]
        if max(self.dilation) > 1:
            classes = np.ravel_multi_index([place % step for place, step in zip(places, self.dilation)], self.dilation)
            found += [classes, classes]
        return tuple(x.astype(np.int32) for x in found)

    def replace(self, arrays):
        return self.tree_unflatten((self.shape, self.kernel, self.dilation), (tuple(arrays),))

    def check(self, q_seq, kv_seq):
        count = math.prod(self.shape)
        if q_seq != count or kv_seq != count:
            raise ValueError(
                f"masks.Neighborhood: shape must have as many positions as there are queries and keys: got "
                f"{self.shape}, {count} positions, for {q_seq} queries and {kv_seq} keys"
            )
        return self

    def allowed(self, i, j, *arrays):
        seen = (i == i) & (j == j)
        for axis, width, step in zip(range(len(self.shape)), self.kernel, self.dilation):
            first, place = arrays[2 * axis : 2 * axis + 2]
            seen = seen & (place >= first) & (place <= first + (width - 1) * step)
        for axis in range(len(self.shape), len(arrays) // 2):
            seen = seen & (arrays[2 * axis] == arrays[2 * axis + 1])
        return seen

    def block_bounds(self, i0, i1, j0, j1, *spans):
        # The arrays are known here as they are static: NumPy's bounds let a backend size its loops.
        known = all(isinstance(x, (int, np.integer, np.ndarray)) for x in (i0, i1, j0, j1))
        lib: Any = np if known else jnp
        any_ = all_ = (i0 == i0) & (j0 == j0)
        ranges = zip(self._ranges(lib, i0, i1), self._ranges(lib, j0, j1))
        for (queries, keys), first, width, step in zip(ranges, self._firsts(), self.kernel, self.dilation):
            lowest = lib.asarray(np.minimum.accumulate(first[::-1])[::-1])[queries[0]]
            highest = lib.asarray(np.maximum.accumulate(first))[queries[1]]
            reach = (width - 1) * step
            any_ = any_ & (keys[1] >= lowest) & (keys[0] <= highest + reach)
            all_ = all_ & (keys[0] >= highest) & (keys[1] <= lowest + reach) & (step == 1)
        return any_, all_

    def matrix(self) -> np.ndarray:
        """The allowed pairs, (queries, keys)."""
        arrays = [x[:, None] if axes == "bq" else x[None] for axes, x in zip(self.axes, self._own().arrays())]
        count = math.prod(self.shape)
        return self.allowed(np.arange(count)[:, None], np.arange(count)[None], *arrays)

    def _own(self) -> "Neighborhood":
        return Neighborhood(self.shape, self.kernel, self.dilation)

    def _firsts(self) -> list[np.ndarray]:
        """For each axis and position the first one that it sees."""
        found = []
        for size, width, step in zip(self.shape, self.kernel, self.dilation):
            place = np.arange(size)
            residue, number = place % step, place // step
            count = (size - residue + step - 1) // step  # positions of the same residue
            found.append(residue + step * np.clip(number - width // 2, 0, count - width))
        return found

    def _ranges(self, lib: Any, first: Any, last: Any) -> list[tuple[Any, Any]]:
        """The least and greatest position along each axis of a stretch of the flattened grid."""
        found, alike = [], first == first
        for axis, size in enumerate(self.shape):
            step = math.prod(self.shape[axis + 1 :])
            low, high = (first // step) % size, (last // step) % size
            found.append((lib.where(alike, low, 0), lib.where(alike, high, size - 1)))
            alike = alike & (low == high)
        return found


def _sizes(name: str, value: Any, count: int | None) -> Sizes:
    """Positive integers, one for each axis."""
    numbers = value if isinstance(value, tuple) else (value,) * (count or 1)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise ValueError(f"masks.Neighborhood: {name} must be positive ints: got {value!r}")
    if not numbers or (count is not None and len(numbers) != count):
        raise ValueError(f"masks.Neighborhood: {name} must have one number for each axis, {count}: got {value!r}")
    return tuple(map(int, numbers))
