"""How the two passes are cut into tiles."""

import dataclasses
import math

import numpy as np

from .. import blocks
from ..problem import Extras

# The sides of a tile, (rows, keys), best first: a large one makes more of a product, a small one wastes less along a
# mask's edge. So the first is taken by which a mask visits less than WASTE times the pairs that it visits by the last.
FORWARD_TILES = (1024, 1024), (512, 512), (256, 256)
BACKWARD_TILES = (512, 512), (256, 256)
WASTE = 1.15

# Up to so many queries and keys, all pairs of all heads are held at once: a tile of so few is cheaper than the loop
# around it. So it is with twice as many, where no more than FEW pairs are held.
SHORT, FEW = 128, 1 << 21

# How many heads may be worked on side by side: LANES; with no more than LANE_PAIRS pairs in their tiles, as a core's
# cache holds few and a large product keeps the cores busy by itself; and two at least of no more than LANE_ROWS rows,
# as each has copies of its own.
LANES, LANE_PAIRS, LANE_ROWS = 8, 1 << 19, 1 << 15


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of one pass. `q_block` counts queries of one head; a tile has `repeat` times as many rows."""

    batch: int
    kv_heads: int
    repeat: int
    q_seq: int
    kv_seq: int
    q_block: int
    kv_block: int


def is_short(q, k) -> bool:
    """Whether a problem is taken whole."""
    longest = max(q.shape[1], k.shape[1])
    return longest <= SHORT or (longest <= 2 * SHORT and math.prod(q.shape[:3]) * k.shape[1] <= FEW)


def make_plan(q, k, extras: Extras, tiles: tuple[tuple[int, int], ...]) -> Plan:
    """The plan by one of these tiles."""
    plans = [_cut(q, k, tile) for tile in tiles]
    if extras.mask is None:
        return plans[0]
    costs = [_pairs(extras, plan) for plan in plans]
    return next((plan for plan, cost in zip(plans, costs) if cost < WASTE * costs[-1]), plans[-1])


def _cut(q, k, tile: tuple[int, int]) -> Plan:
    repeat = q.shape[2] // k.shape[2]

    def block(seq: int, most: int) -> int:
        count = -(-seq // most)
        size = -(-seq // count)
        return size if count == 1 else -(-size // 16) * 16

    return Plan(
        q.shape[0],
        k.shape[2],
        repeat,
        q.shape[1],
        k.shape[1],
        block(q.shape[1], max(16, tile[0] // repeat)),
        block(k.shape[1], tile[1]),
    )


def _pairs(extras: Extras, plan: Plan) -> float:
    """How many pairs the visited blocks of a plan have; infinite where that is not known before the program runs."""
    some, _ = blocks.spread(extras.mask, plan.q_seq, plan.kv_seq, plan.q_block, plan.kv_block)
    return float(some.sum()) * plan.q_block * plan.kv_block if isinstance(some, np.ndarray) else float("inf")
