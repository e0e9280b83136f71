"""Tile sizes of the kernels."""

import math

from ..._blocks import parts, power

TILE = 4096  # elements of a program, 16 for each thread of 8 warps
LONGEST = 8192  # elements of a program at most; more do not fit in the registers of a multiprocessor
SHARED = 96 << 10  # bytes of shared memory of a program on every GPU from sm_80 on
PROGRAMS = 264  # partial sums of a parameter's gradient: twice the 132 multiprocessors of an H100


def row_tile(rows: int, dim: int) -> dict[str, int]:
    """Whole rows, as many as make a tile."""
    block_dim = power(dim)
    return {"BLOCK_ROWS": min(max(TILE // block_dim, 1), power(rows)), "BLOCK_DIM": block_dim}


def group_tile(space: int, groups: int, width: int, itemsize: int) -> dict[str, int] | None:
    """All of the space of some groups, or None if that is too much for a program or needs slices that waste memory
    sectors.
    """
    each = power(space) * power(width)
    if each > LONGEST:
        return None
    block = min(max(TILE // each, 1), power(groups))
    # Memory is read in sectors of 32 bytes; a slice of a few shares its first and its last with the neighbours.
    if block < groups and block * width * itemsize < 64:
        return None
    return {"BLOCK_SPACE": power(space), "BLOCK_GROUPS": block, "BLOCK_WIDTH": power(width)}


def part_tile(space: int, groups: int, width: int) -> dict[str, int]:
    """As many whole groups as fit, and as much space as makes a tile with them."""
    block = min(max(TILE // power(width), 1), power(groups))
    return {
        "BLOCK_SPACE": min(max(TILE // (block * power(width)), 1), power(space)),
        "BLOCK_GROUPS": block,
        "BLOCK_WIDTH": power(width),
    }


def stages(nbytes: int) -> int:
    """Pipeline stages of a loop that loads this many bytes in each iteration."""
    return 3 if 2 * nbytes <= SHARED else 2


def elements(tile: dict[str, int]) -> int:
    """The size of a tile."""
    return math.prod(tile.values())


def split_tile(batch: int, sizes: dict[str, int]) -> tuple[int, dict[str, int]]:
    """Programs and tile of the kernels that take parts of the space, enough programs to fill the GPU."""
    space, groups = sizes["SPACE"], sizes["GROUPS"]
    tile = part_tile(space, groups, sizes["WIDTH"])
    across = parts(groups, tile["BLOCK_GROUPS"])
    part = parts(space, parts(PROGRAMS, batch * across))
    part = parts(part, tile["BLOCK_SPACE"]) * tile["BLOCK_SPACE"]
    count = parts(space, part)
    return batch * count * across, {**tile, "PARTS": count, "PART": part}
