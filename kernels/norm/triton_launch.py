"""How a Triton kernel is launched: everything about a launch is decided without triton, and handed to jax-triton in one place."""

import dataclasses
import importlib
import importlib.util
import math
from typing import Any

import jax
from jax import Array

TILE = 4096  # elements that a program aims at, 16 for each thread of 8 warps
LONGEST = 8192  # elements that a program holds at once; more does not fit in the registers of a multiprocessor
SHARED = 96 << 10  # bytes of shared memory that every GPU from sm_80 on gives to a program
PROGRAMS = 264  # twice the 132 multiprocessors of an H100: how many partial sums of a parameter's gradient there are


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of `kernel`, a function in the module `module` beside this one.

    It is called with pointers to its inputs, then to its `outputs`, and with the compile-time arguments `sizes` by name.
    """

    module: str
    kernel: str
    outputs: tuple[jax.ShapeDtypeStruct, ...]
    grid: int
    tile: int
    sizes: dict[str, Any]

    @property
    def warps(self) -> int:
        """Warps of a program: 512 elements of its tile for each."""
        return min(max(self.tile // 512, 1), 16)


def unavailable() -> str | None:
    """Why jax-triton cannot be used in this process, or `None`."""
    missing = [name for name in ("triton", "jax_triton") if importlib.util.find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; install the extra `cuda`"
    try:
        importlib.import_module("jax_triton")
    except ImportError as error:
        return f"jax-triton, which lowers only where jax's CUDA plugin is installed, cannot be imported: {str(error).splitlines()[0]}"
    return None


def call(launch: Launch, *inputs: Array) -> list[Array]:
    """The outputs of a launch."""
    import jax_triton  # here, because jax runs without it and it does not run without jax's CUDA plugin

    kernels = importlib.import_module(f".{launch.module}", __package__)
    return jax_triton.triton_call(
        *inputs,
        kernel=getattr(kernels, launch.kernel),
        out_shape=list(launch.outputs),
        grid=(launch.grid,),
        num_warps=launch.warps,
        name=f"eqxgen_{launch.module}_{launch.kernel}",
        **launch.sizes,
    )


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
    """All of the space of some groups, or `None` where it is too much for a program or only in slices that waste what memory delivers."""
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
    return {"BLOCK_SPACE": min(max(TILE // (block * power(width)), 1), power(space)), "BLOCK_GROUPS": block, "BLOCK_WIDTH": power(width)}


def stages(nbytes: int) -> int:
    """How deep a loop that loads this much in each turn is pipelined: a turn is computed while one or two more are on their way."""
    return 3 if 2 * nbytes <= SHARED else 2


def elements(tile: dict[str, int]) -> int:
    """The size of a tile."""
    return math.prod(tile.values())
