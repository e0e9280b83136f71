"""The tiles of each thread block: a row of blocks, and the steps of its schedule."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._blocks import div, parts, rem
from ..problem import Shape
from ..schedule import Schedule
from .tiling import SIDE, Tile


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """For a thread block its tile and its number of steps, and for a step its tile and whether that needs the mask.

    `table` is flat int32 in global memory, the first argument of `count` and `step`.
    """

    table: Any
    tiles: int
    base: Callable[[Any], Tile]
    count: Callable[[Any, Tile], Any]
    step: Callable[[Any, Tile, Any], tuple[Tile, Any]]


def over_keys(shape: Shape, schedule: Schedule, block: int) -> Scheduler:
    """One thread block for each SIDE queries of each head, over its blocks of keys."""
    rows = parts(shape.q_seq, SIDE)

    def base(index):
        # The last queries of a causal mask have the most keys: they start first.
        row, head = rows - 1 - rem(index, rows), div(index, rows)
        h = rem(head, shape.heads)
        return Tile(div(head, shape.heads), h, div(h, shape.repeat), row * SIDE, jnp.int32(0))

    start = lambda tile: schedule.start(tile.b, tile.h, div(tile.i, SIDE))

    def step(table, tile, n):
        entry = table[start(tile) + 1 + n]
        return dataclasses.replace(tile, j=(entry >> 1) * block), entry & 1

    count = lambda table, tile: table[start(tile)]
    return Scheduler(schedule.table, shape.batch * shape.heads * rows, base, count, step)


def over_queries(shape: Shape, schedule: Schedule, block: int) -> Scheduler:
    """One thread block for each SIDE keys of each key head, over the blocks of queries of all its heads.

    The schedule is one of `by_keys`.
    """
    rows, columns = parts(shape.kv_seq, SIDE), parts(shape.q_seq, block)

    def base(index):
        row, head = rem(index, rows), div(index, rows)
        g = rem(head, shape.kv_heads)
        return Tile(div(head, shape.kv_heads), g * shape.repeat, g, jnp.int32(0), row * SIDE)

    start = lambda tile: schedule.start(tile.b, tile.g, div(tile.j, SIDE))

    def step(table, tile, n):
        entry = table[start(tile) + 1 + n]
        head, column = div(entry >> 1, columns), rem(entry >> 1, columns)
        return dataclasses.replace(tile, h=tile.g * shape.repeat + head, i=column * block), entry & 1

    count = lambda table, tile: table[start(tile)]
    return Scheduler(schedule.table, shape.batch * shape.kv_heads * rows, base, count, step)


def by_keys(active, full, repeat: int) -> tuple[Any, Any]:
    """Block bounds with a row for each block of keys: its columns are the blocks of queries of all heads that share a
    key head, head by head.
    """

    def transposed(x):
        lib: Any = np if isinstance(x, np.ndarray) else jnp
        b, h, queries, keys = x.shape
        if h == 1:
            x = lib.broadcast_to(x, (b, repeat, queries, keys))
        x = x.reshape(b, x.shape[1] // repeat, repeat, queries, keys)
        return lib.moveaxis(x, 4, 2).reshape(b, -1, keys, repeat * queries)

    return transposed(active), transposed(full)
