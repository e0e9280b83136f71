"""Bias, mask and dropout as operands of a kernel."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from ..bias import ALiBi
from ..problem import Extras, unsqueeze
from . import pattern
from .tiling import SIDE, pad


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a kernel finds an array over (b, h, q, k): `at` which operand, and the axes of which it has more than one
    place.

    An "int" is `at` itself.
    """

    kind: str
    at: int
    has: tuple[bool, bool, bool, bool] = (False, False, False, False)


class Prepared:
    """The operands that the extras add to a kernel, and the slots in which `reader.Reader` finds them. `flip` as
    there.
    """

    def __init__(self, extras: Extras, flip: bool):
        self._flip = flip
        self.operands: list[Any] = []
        self.mask = pattern.in_kernel(extras.mask)
        self.views = (
            [self._view(x, axes) for x, axes in zip(self.mask.arrays(), self.mask.axes)]
            if self.mask is not None
            else []
        )
        self.bias: Any = None
        self.slopes: Any = None
        self.offset: Any = None
        self.seeds: Any = None
        if isinstance(extras.bias, ALiBi):
            self.offset, self.slopes = (
                self._view(extras.bias.offset, "b"),
                self._view(extras.bias.slopes.astype(jnp.float32), "bh"),
            )
        elif extras.bias is not None:
            self.bias = self._view(extras.bias, "bhqk")
        if extras.seeds is not None:
            self.seeds = [self._view(extras.seeds[..., n], "bh") for n in range(2)]

    @property
    def heavy(self) -> bool:
        """Whether a tile needs many registers beside its products: those of a bias, or of the rows of a pattern."""
        return self.bias is not None or pattern.holds_pattern(self.mask)

    def _view(self, x, axes: str) -> Slot:
        if isinstance(x, int):
            return Slot("int", x)
        if axes == "pattern":
            self.operands.append(x)
            return Slot("pattern", len(self.operands) - 1)
        x = unsqueeze(x, axes)
        if x.dtype == bool:
            x = x.astype(jnp.int8)
        has = tuple(size > 1 for size in x.shape)
        # A tile that reaches past the last query or key reads what is here; its pairs are masked.
        x = pad(x, 2, SIDE) if has[2] else x
        x = pad(x, 3, SIDE) if has[3] else x
        if has[2] and has[3] and self._flip:
            x = jnp.swapaxes(x, 2, 3)
        self.operands.append(x)
        return Slot("array", len(self.operands) - 1, has)
