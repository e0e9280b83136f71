"""Block-sparse schedules: the blocks of keys that each block of queries computes."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._blocks import parts
from ..masks import Mask
from .problem import Blocked


def block_bounds(mask: Mask | None, q_seq: int, kv_seq: int, q_block: int, kv_block: int) -> tuple[Any, Any]:
    """`(active, full)`, boolean (b, h, q_blocks, kv_blocks): any pair of the block is allowed, all pairs are.

    Both are NumPy arrays if the mask holds no arrays, so that a backend can size its loops. A block that reaches beyond
    the last key is not full.
    """
    q_blocks, kv_blocks = parts(q_seq, q_block), parts(kv_seq, kv_block)
    i0 = (np.arange(q_blocks, dtype=np.int32) * q_block).reshape(1, 1, -1, 1)
    j0 = (np.arange(kv_blocks, dtype=np.int32) * kv_block).reshape(1, 1, 1, -1)
    i1, j1 = np.minimum(i0 + q_block, q_seq) - 1, np.minimum(j0 + kv_block, kv_seq) - 1
    inside = j0 + kv_block <= kv_seq
    shape = (1, 1, q_blocks, kv_blocks)
    if mask is None:
        return np.ones(shape, bool), np.broadcast_to(inside, shape)
    sizes = {"q": (q_seq, q_block), "k": (kv_seq, kv_block)}
    spans = [_span(x, axes, sizes) for axes, x in zip(mask.axes, mask.arrays())]
    active, full = mask.block_bounds(i0, i1, j0, j1, *spans)
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    shape = np.broadcast_shapes(shape, np.shape(active), np.shape(full))
    return lib.broadcast_to(active, shape), lib.broadcast_to(full & inside, shape)


def bounds_of(mask: Mask | None, shape: Blocked) -> tuple[Any, Any]:
    """`block_bounds` for these sizes."""
    return block_bounds(mask, shape.q_seq, shape.kv_seq, shape.q_block, shape.kv_block)


def _span(x, axes: str, sizes):
    """The least and greatest value of an array over each block, as (b, h, q_blocks, kv_blocks) with axes of size 1
    that it lacks.
    """
    if isinstance(x, int):
        return x, x
    x = x.astype(jnp.int32)
    low = high = x.reshape(tuple(x.shape[axes.index(a)] if a in axes else 1 for a in "bhqk"))
    for axis, name in ((2, "q"), (3, "k")):
        seq, block = sizes[name]
        if low.shape[axis] != seq or name not in axes:
            continue
        pad = [(0, 0)] * 4
        pad[axis] = (0, -seq % block)
        split = (*low.shape[:axis], -1, block, *low.shape[axis + 1 :])
        low = jnp.pad(low, pad, mode="edge").reshape(split).min(axis + 1)
        high = jnp.pad(high, pad, mode="edge").reshape(split).max(axis + 1)
    return low, high


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The blocks that each row of blocks computes, in one flat array of int32: for each row the number of its entries,
    then `steps` entries.

    `shape` is (examples, heads, rows, steps), where one example or head may serve all. An entry is twice the column,
    plus 1 if the block needs the mask.
    """

    table: Any
    shape: tuple[int, int, int, int]

    @property
    def steps(self) -> int:
        return self.shape[3]

    def start(self, b, h, row):
        """The index of a row's count; its entries follow."""
        examples, heads, rows, steps = self.shape
        return (((b if examples > 1 else 0) * heads + (h if heads > 1 else 0)) * rows + row) * (steps + 1)


def schedule(active, full) -> Schedule:
    """The schedule of all active blocks, for kernels that read an entry in each step."""
    found, counts = entries(active, full)
    lib: Any = np if isinstance(found, np.ndarray) else jnp
    return Schedule(jnp.asarray(lib.concatenate([counts[..., None], found], -1)).reshape(-1), found.shape)


def entries(active, full, most: int | None = None):
    """For each row of blocks the entries of its active blocks, nearest first: `(entries, counts)`.

    `entries` is int32 (b, h, rows, steps). After a row's count the last one repeats, so that a pipeline copies nothing
    new. `steps` is the largest count if that is known while tracing, else `most`, by default the number of columns.
    """
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    columns = active.shape[-1]
    counts = active.sum(-1).astype(np.int32)
    order = lib.argsort(~active, axis=-1, stable=True).astype(np.int32)
    steps = max(1, int(counts.max())) if lib is np else columns if most is None else most
    numbers = np.arange(steps, dtype=np.int32).reshape(*(1,) * counts.ndim, steps)
    last = lib.maximum(lib.minimum(numbers, counts[..., None] - 1), 0)
    column = lib.take_along_axis(order, last, axis=-1)
    partial = ~lib.take_along_axis(full, column, axis=-1)
    return (column * 2 + partial).astype(np.int32), counts


def full_first(active, full):
    """For each row of blocks its columns, full blocks first, then partial ones: `(columns, full count, count)`."""
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    full = active & full
    rank = 2 - active.astype(np.int8) - full.astype(np.int8)
    columns = lib.argsort(rank, axis=-1, stable=True).astype(np.int32)
    return columns, full.sum(-1).astype(np.int32), active.sum(-1).astype(np.int32)


def flags(active, full) -> Any:
    """int32 (b, h, rows, columns): 0 for a block to skip, 1 for one that needs the mask, 2 for a full one."""
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    return lib.where(active, lib.where(full, 2, 1), 0).astype(np.int32)
