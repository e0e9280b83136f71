"""Copies of arrays in other layouts, in memory that JAX takes as it is."""

import math
import mmap

import numpy as np

ALIGNMENT, BLOCK, LARGE = 64, 128, 2**20
"""Bytes to which XLA wants an array aligned, entries of a block's side, and bytes from which pages are mapped."""

_FLAGS = getattr(mmap, "MAP_POPULATE", None)  # Linux's


def fresh(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory for an array, which `jax.device_put` on a CPU does not copy. The pages of a large one are made at once,
    which takes half the time.
    """
    size = math.prod(shape) * dtype.itemsize
    if size >= LARGE and _FLAGS is not None:
        memory = np.frombuffer(mmap.mmap(-1, size, flags=_FLAGS | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
        return memory.view(dtype).reshape(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def copied(into: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Copies an array of the same shape; gives the copy. Transposed matrices are copied in blocks, as whole rows of one
    are far apart in the other (4 times faster for 768 x 3072).
    """
    axes = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    fast = min(axes, key=lambda axis: abs(array.strides[axis]), default=-1)
    if not axes or fast == axes[-1] or array.shape[fast] <= BLOCK or array.shape[axes[-1]] <= BLOCK:
        into[...] = array
        return into
    fro, to = (np.moveaxis(each, (fast, axes[-1]), (-2, -1)) for each in (array, into))
    for row in range(0, fro.shape[-2], BLOCK):
        for column in range(0, fro.shape[-1], BLOCK):
            block = (..., slice(row, row + BLOCK), slice(column, column + BLOCK))
            to[block] = fro[block]
    return into
