"""Masks that depend on positions alone: causal, window, prefix."""

from typing import Any, ClassVar

import numpy as np

from .base import Mask
from .fields import check_lengths, integers, pytree


@pytree(arrays=("offset",))
class Causal(Mask):
    """Query i sees keys 0 to i + offset.

    `offset` is an int, or an array that broadcasts to the batch: `Causal(n)` for a cache that held `n` keys before
    these queries.
    """

    offset: Any = 0
    axes: ClassVar[tuple[str, ...]] = ("b",)

    def __post_init__(self):
        object.__setattr__(self, "offset", integers("Causal's offset", self.offset))

    def arrays(self):
        return (self.offset,)

    def replace(self, arrays):
        return Causal(*arrays)

    def allowed(self, i, j, offset):
        return j <= i + offset

    def block_bounds(self, i0, i1, j0, j1, offset):
        low, high = offset
        return j0 <= i1 + high, j1 <= i0 + low


@pytree(static=("left", "right"))
class Window(Mask):
    """Query i sees keys i - left to i + right. Each is an int; None leaves that side open."""

    left: Any
    right: Any

    def __post_init__(self):
        for side in ("left", "right"):
            value = getattr(self, side)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"masks.Window: {side} must be an int or None: got {value!r}")
            if value < 0:
                raise ValueError(
                    f"masks.Window: {side} must not be negative: got {side}={value}; use None for an open side"
                )
            object.__setattr__(self, side, int(value))

    def allowed(self, i, j):
        seen = None
        if self.left is not None:
            seen = j >= i - self.left
        if self.right is not None:
            right = j <= i + self.right
            seen = right if seen is None else seen & right
        return (i == i) & (j == j) if seen is None else seen

    def block_bounds(self, i0, i1, j0, j1):
        any_ = all_ = (i0 == i0) & (j0 == j0)
        if self.left is not None:
            any_, all_ = any_ & (j1 >= i0 - self.left), all_ & (j0 >= i1 - self.left)
        if self.right is not None:
            any_, all_ = any_ & (j0 <= i1 + self.right), all_ & (j1 <= i0 + self.right)
        return any_, all_


@pytree(arrays=("length",))
class PrefixLM(Mask):
    """Every query sees keys 0 to length - 1, and query i sees keys 0 to i. `length` is an int or an array over the
    batch.
    """

    length: Any
    axes: ClassVar[tuple[str, ...]] = ("b",)

    def __post_init__(self):
        object.__setattr__(self, "length", integers("PrefixLM's length", self.length))

    def arrays(self):
        return (self.length,)

    def replace(self, arrays):
        return PrefixLM(*arrays)

    def check(self, q_seq, kv_seq):
        check_lengths("PrefixLM: length", self.length, kv_seq, "key")
        return self

    def allowed(self, i, j, length):
        return (j <= i) | (j < length)

    def block_bounds(self, i0, i1, j0, j1, length):
        low, high = length
        return (j0 <= i1) | (j0 < high), (j1 <= i0) | (j1 < low)
