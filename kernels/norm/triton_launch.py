"""Launches of the norms' Triton kernels: how many elements a program takes, and what follows from it."""

import dataclasses
import math
from typing import Any, ClassVar

from .. import _triton
from .._triton import call, unavailable

__all__ = [
    "Launch",
    "call",
    "elements",
    "group_tile",
    "part_tile",
    "parts",
    "power",
    "row_tile",
    "stages",
    "unavailable",
]

TILE = 4096  # elements that a program aims at, 16 for each thread of 8 warps
LONGEST = 8192  # elements that a program holds at once; more does not fit in the registers of a multiprocessor
SHARED = 96 << 10  # bytes of shared memory that every GPU from sm_80 on gives to a program
PROGRAMS = 264  # twice the 132 multiprocessors of an H100: how many partial sums of a parameter's gradient there are


@dataclasses.dataclass(frozen=True)
class Launch(_triton.Launch):
    """A launch whose programs take `tile` elements each."""

    tile: int
    sizes: dict[str, Any]
    package: ClassVar[str] = "norm"
    stages: ClassVar[int] = 3

    @property
    def warps(self) -> int:
        """Warps of a program: 512 elements of its tile for each."""
        return min(max(self.tile // 512, 1), 16)


def parts(whole: int, part: int) -> int:
    """How many parts of this size cover the whole."""
    return -(-whole // part)


def power(n: int) -> int:
    """The power of two at or above n."""
    return 1 << (n - 1).bit_length()


def row_tile(rows: int, dim: int) -> dict[str, int]:
    """Whole rows, as many as make a tile."""
    block_dim = power(dim)
    return {"BLOCK_ROWS": min(max(TILE // block_dim, 1), power(rows)), "BLOCK_DIM": block_dim}


def group_tile(space: int, groups: int, width: int, itemsize: int) -> dict[str, int] | None:
    """All of the space of some groups, or `None` where it is too much for a program or only in slices that waste what
    memory delivers.
    """
    each = power(space) * power(width)
    if each > LONGEST:
        return None
    block = min(max(TILE // each, 1), power(groups))
    # Memory comes in sectors of 32 bytes; a slice of a few sectors shares its first and its last with the neighbours.
    if block < groups and block * width * itemsize < 64:
        return None
    return {"BLOCK_SPACE": power(space), "BLOCK_GROUPS": block, "BLOCK_WIDTH": power(width)}


def part_tile(space: int, groups: int, width: int) -> dict[str, int]:
    """As many whole groups as fit, and as much space as then makes a tile."""
    block = min(max(TILE // power(width), 1), power(groups))
    return {
        "BLOCK_SPACE": min(max(TILE // (block * power(width)), 1), power(space)),
        "BLOCK_GROUPS": block,
        "BLOCK_WIDTH": power(width),
    }


def stages(nbytes: int) -> int:
    """How deep a loop that loads this much in each turn is pipelined: a turn is computed while one or two more are on
    their way.
    """
    return 3 if 2 * nbytes <= SHARED else 2


def elements(tile: dict[str, int]) -> int:
    """The size of a tile."""
    return math.prod(tile.values())
