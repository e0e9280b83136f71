"""Masks joined with `&` and `|`."""

import dataclasses
import functools
from collections.abc import Iterator

import jax

from .base import Mask
from .dense import Dense


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

    def touch(self, i0, i1, j0, j1, *spans):
        left, right = self._both("touch", (i0, i1, j0, j1), spans)
        return left[0] & right[0], left[1] & right[1]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("left", "right"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Or(_Joint):
    """Pairs that either mask allows."""

    def allowed(self, i, j, *arrays):
        left, right = self._both("allowed", (i, j), arrays)
        return left | right

    def touch(self, i0, i1, j0, j1, *spans):
        left, right = self._both("touch", (i0, i1, j0, j1), spans)
        return left[0] | right[0], left[1] | right[1]


def parts(mask: Mask | None) -> Iterator[Mask]:
    """The masks that a mask is joined from, itself where it is one."""
    if isinstance(mask, _Joint):
        yield from parts(mask.left)
        yield from parts(mask.right)
    elif mask is not None:
        yield mask


def as_mask(value) -> Mask:
    """A mask as it is, or a boolean array as `Dense`."""
    return value if isinstance(value, Mask) else Dense(value)
