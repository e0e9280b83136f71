"""A mask that is an array."""

from typing import Any, ClassVar

import numpy as np

from .base import Mask
from .tree import pytree


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

    def touch(self, i0, i1, j0, j1, array):
        low, high = array
        return high != 0, low != 0
