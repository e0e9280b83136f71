"""How a Hopper kernel cuts a problem into tiles."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Rows of one warpgroup's matrix product, and the warpgroups that compute; one more loads.
ROWS, CONSUMERS = 64, 2
SIDE = ROWS * CONSUMERS
SHARED_BYTES = 227 * 1024
MOST_STAGES = 4


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of one pass. `dim` and `v_dim` are padded, the lengths are not."""

    batch: int
    heads: int
    kv_heads: int
    q_seq: int
    kv_seq: int
    dim: int
    v_dim: int

    @property
    def repeat(self) -> int:
        return self.heads // self.kv_heads


@dataclasses.dataclass(frozen=True)
class Plan:
    """The block of positions that a step loads, and how many steps may be under way."""

    block: int
    stages: int


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a warpgroup works on: example, query head, key head, and the first query and key."""

    b: Any
    h: Any
    g: Any
    i: Any
    j: Any


def shares_registers() -> bool:
    """Whether the computing warpgroups can take the registers that the loading one gives up: 240 a thread in place of
    168.

    From jax 0.12 on its CUDA plugin assembles by nvJitLink, which ignores the request (ptxas' C7504).
    """
    return jax.__version_info__ < (0, 12)


def shape_of(q, k, v) -> Shape:
    """Of operands (batch, seq, heads, dim)."""
    return Shape(
        q.shape[0], q.shape[2], k.shape[2], q.shape[1], k.shape[1], padded_dim(q.shape[3]), padded_dim(v.shape[3])
    )


def padded_dim(dim: int) -> int:
    """A head_dim whose rows fill whole lines of the swizzled shared memory."""
    unit = 32 if dim <= 128 else 64
    return -(-dim // unit) * unit


def plan(blocks: Sequence[int], fixed: int, per_position: int, per_step: int = 0) -> Plan:
    """The first of these blocks of which two fit beside `fixed` bytes of shared memory, or else the last."""
    free = SHARED_BYTES - fixed - 4096
    block, stages = blocks[-1], 1
    for block in blocks:
        stages = free // (block * per_position + per_step)
        if stages >= 2:
            break
    return Plan(block, max(1, min(MOST_STAGES, stages)))


def blocks_of(seq: int, block: int) -> int:
    return -(-seq // block)


def operand(x, dim: int):
    """(batch, seq, heads, d) as the kernels read it: (batch, seq, heads, dim) with a whole number of sides."""
    return pad(pad(x, 1, SIDE), 3, dim)


def result(x, seq: int, dim: int):
    """A kernel's result without the padding of `operand`."""
    return x[:, :seq, :, :dim]


def rows(x):
    """(batch, heads, q_seq), one number per query, with a whole number of sides."""
    return pad(x, 2, SIDE)


def pad(x, axis: int, unit: int):
    """`x` with zeros up to a multiple of the unit."""
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, -x.shape[axis] % unit)
    return jnp.pad(x, missing) if missing[axis][1] else x


def div(a, b: int):
    """`a // b` of numbers that are not negative."""
    return a if b == 1 else jax.lax.div(a, jnp.int32(b))


def rem(a, b: int):
    """`a % b` of numbers that are not negative."""
    return jnp.int32(0) if b == 1 else jax.lax.rem(a, jnp.int32(b))
