"""Which blocks of keys a block of queries has to visit."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..masks import Mask


def spread(mask: Mask | None, q_seq: int, kv_seq: int, q_block: int, kv_block: int) -> tuple[Any, Any]:
    """`(some, every)`, boolean (b, h, q_blocks, kv_blocks): is a pair of the block allowed, are all?

    Both are NumPy arrays where the mask holds no arrays, so that a backend can size its loops. `every` is False where a
    block reaches beyond the last key.
    """
    q_blocks, kv_blocks = -(-q_seq // q_block), -(-kv_seq // kv_block)
    i0 = (np.arange(q_blocks, dtype=np.int32) * q_block).reshape(1, 1, -1, 1)
    j0 = (np.arange(kv_blocks, dtype=np.int32) * kv_block).reshape(1, 1, 1, -1)
    i1, j1 = np.minimum(i0 + q_block, q_seq) - 1, np.minimum(j0 + kv_block, kv_seq) - 1
    inside = j0 + kv_block <= kv_seq
    shape = (1, 1, q_blocks, kv_blocks)
    if mask is None:
        return np.ones(shape, bool), np.broadcast_to(inside, shape)
    spans = [
        _span(x, axes, {"q": (q_seq, q_block), "k": (kv_seq, kv_block)}) for axes, x in zip(mask.axes, mask.arrays())
    ]
    some, every = mask.block_bounds(i0, i1, j0, j1, *spans)
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    full = np.broadcast_shapes(shape, np.shape(some), np.shape(every))
    return lib.broadcast_to(some, full), lib.broadcast_to(every & inside, full)


def _span(x, axes: str, sizes):
    """The least and greatest value of an array over each block, as (b, h, q_blocks, kv_blocks) with axes of size 1
    where it has none.
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


def visits(some, every):
    """For each row of blocks the ones to visit, nearest first: `(entries, counts)`.

    `entries` is int32 (b, h, rows, steps), twice the column plus 1 where a block needs the mask; past a row's count the
    last one repeats, so that a pipeline fetches nothing new. `steps` is the largest count where that is known while
    tracing.
    """
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    columns = some.shape[-1]
    counts = some.sum(-1).astype(np.int32)
    order = lib.argsort(~some, axis=-1, stable=True).astype(np.int32)
    steps = max(1, int(counts.max())) if lib is np else columns
    numbers = np.arange(steps, dtype=np.int32).reshape(*(1,) * counts.ndim, steps)
    last = lib.maximum(lib.minimum(numbers, counts[..., None] - 1), 0)
    columns_to_visit = lib.take_along_axis(order, last, axis=-1)
    partial = ~lib.take_along_axis(every, columns_to_visit, axis=-1)
    return (columns_to_visit * 2 + partial).astype(np.int32), counts
