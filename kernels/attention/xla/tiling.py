"""Tile sizes of the two passes."""

import math

import numpy as np

from ..._blocks import known, parts
from ..problem import Blocked, Extras, Shape, blocked
from ..schedule import bounds_of

# The sides of a tile, (rows, keys), best first: a large one is efficient, a small one wastes less along a mask's edge.
# The first is chosen whose active blocks hold less than WASTE times the pairs of the last one's.
FORWARD_TILES = (1024, 1024), (512, 512), (256, 256)
BACKWARD_TILES = (512, 512), (256, 256)
WASTE = 1.15

# Up to SHORT queries and keys, and up to twice as many if there are no more than FEW pairs, all pairs of all heads are
# one tile.
SHORT, FEW = 128, 1 << 21

# Limits of the heads computed side by side: LANES of them; LANE_PAIRS pairs in their tiles, as a core's cache is small
# and a large product fills the cores by itself; LANE_ROWS rows (but two heads), as each has copies of its own.
LANES, LANE_PAIRS, LANE_ROWS = 8, 1 << 19, 1 << 15


def is_short(shape: Shape) -> bool:
    """True if a call is one tile, as one of symbolic lengths is."""
    if not known(shape.q_seq, shape.kv_seq):
        return True
    longest = max(shape.q_seq, shape.kv_seq)
    pairs = math.prod((shape.batch, shape.heads, shape.q_seq, shape.kv_seq))
    return longest <= SHORT or (longest <= 2 * SHORT and known(pairs) and pairs <= FEW)


def tiled(shape: Shape, extras: Extras, tiles: tuple[tuple[int, int], ...]) -> Blocked:
    """The sizes with blocks by one of these tiles. `q_block` counts queries of one head; a tile has `repeat` times as
    many rows.
    """
    choices = [_blocks(shape, tile) for tile in tiles]
    if extras.mask is None:
        return choices[0]
    costs = [_pairs(extras, choice) for choice in choices]
    return next((choice for choice, cost in zip(choices, costs) if cost < WASTE * costs[-1]), choices[-1])


def _blocks(shape: Shape, tile: tuple[int, int]) -> Blocked:
    def block(seq: int, most: int) -> int:
        count = parts(seq, most)
        size = parts(seq, count)
        return size if count == 1 else 16 * parts(size, 16)

    return blocked(shape, block(shape.q_seq, max(16, tile[0] // shape.repeat)), block(shape.kv_seq, tile[1]))


def _pairs(extras: Extras, shape: Blocked) -> float:
    """The pairs in the active blocks; infinite if not known while tracing."""
    active, _ = bounds_of(extras.mask, shape)
    return float(active.sum()) * shape.q_block * shape.kv_block if isinstance(active, np.ndarray) else float("inf")


def lanes_of(columns, shape: Blocked) -> int:
    """The number of groups in one loop, all of the same schedule; `columns` as from `schedule_of`."""
    alone = not known(shape.batch) or columns.shape[0] != 1
    count = shape.kv_heads if alone else shape.batch * shape.kv_heads
    by_cache = LANE_PAIRS // (shape.repeat * shape.q_block * shape.kv_block)
    by_memory = max(LANE_ROWS // max(shape.repeat * shape.q_seq, shape.kv_seq, 1), 2)
    most = min(LANES, by_cache, by_memory, count)
    return 1 if columns.shape[1] > 1 else next((n for n in range(most, 1, -1) if count % n == 0), 1)
