"""Tile sizes, and the padding of operands to them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from ..._blocks import pad, parts
from ..problem import Shape, shape_of

# Rows of one warpgroup's matrix product, and the warpgroups that compute; one more loads.
ROWS, CONSUMERS = 64, 2
SIDE = ROWS * CONSUMERS
SHARED_BYTES = 227 * 1024
MOST_STAGES = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """The positions of a block that a step loads, and the stages of the ring."""

    block: int
    stages: int


@dataclasses.dataclass(frozen=True)
class Tile:
    """A warpgroup's tile: example, query head, key head, and the first query and key."""

    b: Any
    h: Any
    g: Any
    i: Any
    j: Any


def shares_registers() -> bool:
    """True if the computing warpgroups get the registers that the loading one gives up: 240 a thread instead of 168.

    From jax 0.12 on its CUDA plugin assembles by nvJitLink, which ignores the request (ptxas' C7504).
    """
    return jax.__version_info__ < (0, 12)


def padded_shape(q, k, v) -> Shape:
    """`problem.shape_of` with the head_dims of the kernels."""
    shape = shape_of(q, k, v)
    return dataclasses.replace(shape, dim=padded_dim(shape.dim), v_dim=padded_dim(shape.v_dim))


def padded_dim(dim: int) -> int:
    """A head_dim whose rows fill whole lines of the swizzled shared memory."""
    unit = 32 if dim <= 128 else 64
    return unit * parts(dim, unit)


def plan(blocks: Sequence[int], fixed: int, per_position: int, per_step: int = 0) -> Plan:
    """The first of these blocks of which two fit beside `fixed` bytes of shared memory, or else the last."""
    free = SHARED_BYTES - fixed - 4096
    block, stages = blocks[-1], 1
    for block in blocks:
        stages = free // (block * per_position + per_step)
        if stages >= 2:
            break
    return Plan(block, max(1, min(MOST_STAGES, stages)))


def operand(x, dim: int):
    """(batch, seq, heads, d) as the kernels read it: (batch, seq, heads, dim) with a whole number of sides."""
    return pad(pad(x, 1, SIDE), 3, dim)


def result(x, seq: int, dim: int):
    """A kernel's result without the padding of `operand`."""
    return x[:, :seq, :, :dim]


def rows(x):
    """(batch, heads, q_seq), one number per query, with a whole number of sides."""
    return pad(x, 2, SIDE)
