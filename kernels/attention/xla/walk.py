"""Which tiles a row of blocks visits, and the loops over them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import blocks
from ..problem import Extras
from . import plan as sizes
from .plan import Plan


def visits_of(extras: Extras, plan: Plan, turned: bool):
    """The columns that each row of blocks visits, filled blocks first: (columns (b, g, rows, steps), how many filled,
    how many in all).

    A row is a block of queries, or of keys with `turned`.
    """
    some: Any
    every: Any
    some, every = blocks.spread(extras.mask, plan.q_seq, plan.kv_seq, plan.q_block, plan.kv_block)
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    if some.shape[1] > 1:
        split = (some.shape[0], plan.kv_heads, plan.repeat, *some.shape[2:])
        some, every = some.reshape(split).any(2), every.reshape(split).all(2)
    if turned:
        some, every = some.swapaxes(2, 3), every.swapaxes(2, 3)
    every = some & every
    order = lib.argsort(2 - some.astype(np.int8) - every.astype(np.int8), axis=-1, stable=True).astype(np.int32)
    filled, count = every.sum(-1).astype(np.int32), some.sum(-1).astype(np.int32)
    return order, filled, count


def lanes_of(visits, plan: Plan) -> int:
    """How many groups walk together, of which all must visit the same blocks."""
    order = visits[0]
    count = plan.kv_heads if order.shape[0] > 1 else plan.batch * plan.kv_heads
    by_cache = sizes.LANE_PAIRS // (plan.repeat * plan.q_block * plan.kv_block)
    by_memory = max(sizes.LANE_ROWS // max(plan.repeat * plan.q_seq, plan.kv_seq, 1), 2)
    most = min(sizes.LANES, by_cache, by_memory, count)
    return 1 if order.shape[1] > 1 else next((n for n in range(most, 1, -1) if count % n == 0), 1)


def walk(visits, at_row, tile, carries):
    """Run `tile(lane, masked, column, carry)` over a row's visits, for each lane; loops that no row needs are left
    out.
    """
    order, filled, count = visits
    row = lambda x: jnp.asarray(x)[tuple(0 if size == 1 else index for size, index in zip(x.shape, at_row))]
    columns = row(order)
    known = isinstance(order, np.ndarray)

    def visit(masked):
        return lambda n, carries: [tile(lane, masked, columns[n], carry) for lane, carry in enumerate(carries)]

    if not known or filled.max() > 0:
        end = int(filled.max()) if known and filled.min() == filled.max() else row(filled)
        carries = jax.lax.fori_loop(0, end, visit(False), carries)
    if not known or (count > filled).any():
        carries = jax.lax.fori_loop(row(filled), row(count), visit(True), carries)
    return carries
