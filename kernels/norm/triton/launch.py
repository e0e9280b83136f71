"""A launch of a kernel, and the sizes that both passes give it."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
from jax import Array

from ... import _triton
from ..._triton import call
from ..fold import sharing
from ..spec import Spec

__all__ = ["Launch", "Shape", "call", "counted", "group_sizes"]

Shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Launch(_triton.Launch):
    """A launch whose programs take `tile` elements each."""

    tile: int
    sizes: dict[str, Any]
    package: ClassVar[str] = "norm.triton"
    stages: ClassVar[int] = 3

    @property
    def warps(self) -> int:
        """Warps of a program: 512 elements of its tile for each."""
        return min(max(self.tile // 512, 1), 16)


def group_sizes(x: Array, factor: Array, spec: Spec) -> tuple[int, dict[str, int]]:
    """The number of examples, and the sizes of a kernel; SHARED neighbours have the same parameters."""
    batch, members = math.prod(x.shape[: spec.batch_dims]), counted(x, factor, spec)[1]
    space = math.prod(x.shape[spec.batch_dims : -1])
    return batch, {"SPACE": space, "GROUPS": spec.groups, "WIDTH": x.shape[-1] // spec.groups, "SHARED": members}


def counted(x: Array, factor: Array, spec: Spec) -> tuple[int, int]:
    """`sharing` of a call that the kernels support."""
    count = sharing(x.shape, factor.shape, spec)
    assert count is not None
    return count
