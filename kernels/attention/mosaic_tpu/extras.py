"""Bias, mask and dropout as operands of a kernel."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from ..bias import ALiBi
from ..problem import Extras, unsqueeze
from . import pattern
from .tiling import Operand, Shape, pad


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a kernel finds an array: `kind` says how, `at` which one, `many` whether it has a row for each example.

    An "int" is `at` itself. A "scalar" counts among the prefetched numbers, the others among the operands: a "tile"
    lies as the kernel's tile does, one that is "turned" has its axes swapped, "numbers" are a table over examples and
    heads, "pattern" the words of a `pattern.Bits`.
    """

    kind: str
    at: int
    many: bool = False


class Prepared:
    """The operands that the extras add to a kernel, and the slots in which `reader.Reader` finds them. `flip` as
    there.
    """

    def __init__(self, extras: Extras, shape: Shape, flip: bool):
        self._shape, self._flip = shape, flip
        self.scalars: list[Any] = []
        self.operands: list[Operand] = []
        self.mask = pattern.in_kernel(extras.mask, shape)
        self.views = (
            [self._view(x, axes) for x, axes in zip(self.mask.arrays(), self.mask.axes)]
            if self.mask is not None
            else []
        )
        self.bias = self.slopes = self.offset = self.seeds = None
        if isinstance(extras.bias, ALiBi):
            self.offset, self.slopes = (
                self._scalar(extras.bias.offset),
                self._numbers(extras.bias.slopes.astype(jnp.float32)),
            )
        elif extras.bias is not None:
            self.bias = self._tile(extras.bias.astype(jnp.float32), "bhqk")
        if extras.seeds is not None:
            self.seeds = dataclasses.replace(self._scalar(extras.seeds.reshape(-1)), many=extras.seeds.shape[0] > 1)

    def _view(self, x, axes: str) -> Slot:
        if isinstance(x, int):
            return Slot("int", x)
        if axes == "pattern":
            return self._operand(
                Operand(jnp.asarray(x), (1, *x.shape[1:]), lambda t: (t.q, 0, 0), pltpu.SMEM), axes, False
            )
        if axes == "b":
            return self._scalar(x)
        return self._tile(x.astype(jnp.int8) if x.dtype == bool else x, axes)

    def _scalar(self, x) -> Slot:
        self.scalars.append(x)
        return Slot("scalar", len(self.scalars) - 1, x.shape[0] > 1)

    def _numbers(self, x) -> Slot:
        return self._operand(Operand(x, memory=pltpu.SMEM), "numbers", x.shape[0] > 1)

    def _operand(self, operand: Operand, kind: str, many: bool) -> Slot:
        self.operands.append(operand)
        return Slot(kind, len(self.operands) - 1, many)

    def _tile(self, x, axes: str) -> Slot:
        """An array over some of the axes, any of which may be 1. A vector is swapped here, so that it lies along the
        tile's axis.
        """
        x = unsqueeze(x, axes)
        has_q, has_k = "q" in axes and x.shape[2] > 1, "k" in axes and x.shape[3] > 1
        x = pad(x, 2, self._shape.q_block) if has_q else x
        x = pad(x, 3, self._shape.kv_block) if has_k else x
        if not (has_q and has_k) and x.dtype == jnp.int8:
            x = x.astype(jnp.int32)
        many, heads = x.shape[0] > 1, x.shape[1] > 1
        block = (1, 1, self._shape.q_block if has_q else 1, self._shape.kv_block if has_k else 1)
        place = lambda t: (t.b if many else 0, t.h if heads else 0, t.q if has_q else 0, t.k if has_k else 0)
        if not self._flip:
            return self._operand(Operand(x, block, place), "tile", many)
        if has_q and has_k:
            return self._operand(Operand(x, block, place), "turned", many)
        swapped = lambda t: tuple(place(t)[axis] for axis in (0, 1, 3, 2))
        return self._operand(Operand(x.swapaxes(2, 3), (1, 1, block[3], block[2]), swapped), "tile", many)
