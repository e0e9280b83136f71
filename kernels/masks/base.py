"""The contract of a mask, masks joined with `&` and `|`, and a mask that is an array."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np

from .fields import pytree

Bounds = tuple[Any, Any]


class Mask:
    """A set of allowed (query, key) pairs."""

    axes: ClassVar[tuple[str, ...]] = ()

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, as_mask(other))

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, as_mask(other))

    def __rand__(self, other) -> "Mask":
        return And(as_mask(other), self)

    def __ror__(self, other) -> "Mask":
        return Or(as_mask(other), self)

    def arrays(self) -> tuple[Any, ...]:
        """The arrays, in the order of `axes`."""
        return ()

    def replace(self, arrays: tuple[Any, ...]) -> "Mask":
        """The same mask with other arrays."""
        return self

    def check(self, q_seq: int, kv_seq: int) -> "Mask":
        """This mask for a problem of these lengths; a `ValueError` if its arrays do not fit."""
        return self

    def allowed(self, *args: Any, **kwargs: Any) -> Any:
        """`allowed(i, j, *arrays)`, elementwise: True where query `i` sees key `j`. The arrays are cut to the block and
        broadcast against both.
        """
        raise NotImplementedError

    def block_bounds(self, *args: Any, **kwargs: Any) -> Bounds:
        """`block_bounds(i0, i1, j0, j1, *spans)` is `(any, all)` over the block of queries `i0..i1` and keys `j0..j1`,
        both ends included.

        `any` may be False only where no pair is allowed, and `all` True only where every pair is. Each array is given
        as the pair of its least and greatest value over the block.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class _Joint(Mask):
    left: Mask
    right: Mask

    @property
    def axes(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.left.axes + self.right.axes

    def arrays(self):
        return self.left.arrays() + self.right.arrays()

    def replace(self, arrays):
        cut = len(self.left.axes)
        return type(self)(self.left.replace(arrays[:cut]), self.right.replace(arrays[cut:]))

    def check(self, q_seq, kv_seq):
        return type(self)(self.left.check(q_seq, kv_seq), self.right.check(q_seq, kv_seq))

    def _both(self, method: str, where: tuple, arrays: tuple):
        cut = len(self.left.axes)
        return getattr(self.left, method)(*where, *arrays[:cut]), getattr(self.right, method)(*where, *arrays[cut:])


@functools.partial(jax.tree_util.register_dataclass, data_fields=("left", "right"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class And(_Joint):
    """Pairs that both masks allow."""

    def allowed(self, i, j, *arrays):
        left, right = self._both("allowed", (i, j), arrays)
        return left & right

    def block_bounds(self, i0, i1, j0, j1, *spans):
        left, right = self._both("block_bounds", (i0, i1, j0, j1), spans)
        return left[0] & right[0], left[1] & right[1]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("left", "right"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Or(_Joint):
    """Pairs that either mask allows."""

    def allowed(self, i, j, *arrays):
        left, right = self._both("allowed", (i, j), arrays)
        return left | right

    def block_bounds(self, i0, i1, j0, j1, *spans):
        left, right = self._both("block_bounds", (i0, i1, j0, j1), spans)
        return left[0] | right[0], left[1] | right[1]


@pytree(arrays=("array",))
class Dense(Mask):
    """Any boolean array that broadcasts to `(*batch, heads, q_seq, kv_seq)`; it costs the memory it holds."""

    array: Any
    axes: ClassVar[tuple[str, ...]] = ("bhqk",)

    def __post_init__(self):
        if not hasattr(self.array, "dtype"):
            object.__setattr__(self, "array", np.asarray(self.array))
        if self.array.dtype != bool:
            raise TypeError(
                f"mask must be boolean, True where a key is seen: got {self.array.dtype}; pass a number to add as "
                "`bias`"
            )

    def arrays(self):
        return (self.array,)

    def replace(self, arrays):
        return Dense(*arrays)

    def check(self, q_seq, kv_seq):
        shape = (1, 1, *np.shape(self.array))[-2:]
        if shape[0] not in (1, q_seq) or shape[1] not in (1, kv_seq):
            raise ValueError(
                f"mask must broadcast to (..., q_seq, kv_seq) = (..., {q_seq}, {kv_seq}): got shape "
                f"{np.shape(self.array)}"
            )
        return self

    def allowed(self, i, j, array):
        return array != 0

    def block_bounds(self, i0, i1, j0, j1, array):
        low, high = array
        return high != 0, low != 0


def as_mask(value) -> Mask:
    """A mask as it is, or a boolean array as `Dense`."""
    return value if isinstance(value, Mask) else Dense(value)


def known(mask: Mask | None) -> Mask | None:
    """A mask without arrays that allows all that this one does, None for one of all pairs."""
    if isinstance(mask, _Joint):
        left, right = known(mask.left), known(mask.right)
        if left and right:
            return type(mask)(left, right)
        return left or right if isinstance(mask, And) else None
    return mask if mask is not None and all(isinstance(x, int) for x in mask.arrays()) else None


def parts(mask: Mask | None) -> Iterator[Mask]:
    """The masks that a mask is joined from, itself where it is one."""
    if isinstance(mask, _Joint):
        yield from parts(mask.left)
        yield from parts(mask.right)
    elif mask is not None:
        yield mask
