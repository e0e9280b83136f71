"""The rows or examples of a program."""

import math

from ..spec import Spec

# The backward pass has about ten blocks live, and the default share of VMEM is 16 MiB.
BLOCK_BYTES = 1 << 19  # of a block of rows in float32
MAX_DIM = 16384  # elements of a row, of which 16 rows still are a block that fits
EXAMPLE_BYTES = 1 << 20  # of an example of group norm in float32
MAX_EXAMPLES = 8  # of a program, whose code is repeated for each
MAX_CHANNELS = 2048
SUBLANES = 8  # rows of a register
PART_REGISTERS = 32  # of a part of an example, which has about four arrays live in 64 registers


def row_block(rows: int, dim: int) -> int:
    """The rows of a program: all of them, or a multiple of the 16 rows of a bfloat16 tile."""
    fit = max(BLOCK_BYTES // (4 * dim) // 16 * 16, 16)
    return min(rows, fit)


def examples_held(shape: tuple[int, ...], itemsize: int, spec: Spec) -> int:
    """The examples of a program of group norm."""
    batch = math.prod(shape[: spec.batch_dims])
    fit = EXAMPLE_BYTES * 4 // itemsize // example_bytes(shape, spec)
    return min(max(fit, 1), MAX_EXAMPLES, batch)


def example_bytes(shape: tuple[int, ...], spec: Spec) -> int:
    """The bytes of one example of group norm in float32, padded to the hardware's tiles."""
    space, channels = math.prod(shape[spec.batch_dims : -1]), shape[-1]
    return 4 * (-(-space // 16) * 16) * (-(-channels // 128) * 128)


def space_part(channels: int) -> int:
    """The rows of an example in registers at a time, a multiple of the 16 rows of a bfloat16 tile."""
    return max(PART_REGISTERS // -(-channels // 128) * SUBLANES // 16 * 16, 16)
