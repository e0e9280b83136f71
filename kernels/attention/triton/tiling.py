"""Tiles of each kernel, by head_dim, dtype and GPU."""

import dataclasses

import jax.numpy as jnp

from ... import _cuda, _triton
from ..._blocks import power


@dataclasses.dataclass(frozen=True)
class Tile:
    """Queries and keys of a block, warps of a program, and pipeline stages."""

    q: int
    k: int
    warps: int
    stages: int


# By the padded head_dim, for GPUs from sm_80 on: a program stays below the 99 KiB of shared memory of sm_86 and sm_89.
# At most four registers of the forward pass spill. Chosen by the reports of ptxas, not timed on a GPU.
FORWARD = {32: Tile(128, 64, 4, 3), 64: Tile(128, 64, 8, 3), 128: Tile(128, 32, 8, 3), 256: Tile(64, 32, 8, 2)}
BACKWARD_Q = {32: Tile(128, 64, 4, 2), 64: Tile(128, 64, 8, 2), 128: Tile(64, 64, 8, 2), 256: Tile(32, 32, 8, 1)}
BACKWARD_KV = {32: Tile(64, 128, 8, 2), 64: Tile(32, 128, 8, 2), 128: Tile(64, 64, 8, 2), 256: Tile(32, 32, 8, 1)}
BACKWARD_BIAS = {32: Tile(64, 64, 4, 2), 64: Tile(64, 64, 4, 2), 128: Tile(64, 64, 8, 1), 256: Tile(32, 32, 8, 1)}
# Differences on sm_90, whose warpgroups multiply from shared memory and have 227 KiB of it.
HOPPER = {
    "FORWARD": {64: Tile(128, 128, 8, 2), 128: Tile(128, 128, 8, 2)},
    "BACKWARD_Q": {128: Tile(128, 32, 8, 2)},
    "BACKWARD_KV": {64: Tile(64, 128, 8, 2), 128: Tile(32, 128, 8, 2)},
    "BACKWARD_BIAS": {},
}
TABLES = {"FORWARD": FORWARD, "BACKWARD_Q": BACKWARD_Q, "BACKWARD_KV": BACKWARD_KV, "BACKWARD_BIAS": BACKWARD_BIAS}


def padded(dim: int) -> int:
    """The power of two at or above a head_dim, and at least 16, the least side of a matrix product."""
    return max(16, power(dim))


def tile_of(kernel: str, widest: int, dtype, capability: int) -> Tile:
    """A kernel's tile for head_dims of at most `widest`; float32 needs twice the memory."""
    dim = max(32, padded(widest))
    if dtype == jnp.float32:
        tile = TABLES[kernel][dim]
        return Tile(max(tile.q // 2, 16), max(tile.k // 2, 16), tile.warps, 1 if widest > 64 else tile.stages)
    special = HOPPER[kernel] if capability == 90 else {}
    return special.get(dim, TABLES[kernel][dim])


def capability() -> int:
    """10 times the compute capability of this process' GPU; without one 80, whose code runs on every later GPU."""
    return _cuda.capability() or _triton.OLDEST
