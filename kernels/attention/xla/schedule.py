"""Loops over the active blocks of a row of blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import Blocked, Extras
from ..schedule import bounds_of, full_first

Schedule = tuple[Any, Any, Any]


def schedule_of(extras: Extras, shape: Blocked, *, by_keys: bool) -> Schedule:
    """`schedule.full_first` for each row of blocks of queries, or of keys: columns (b, g, rows, steps) and the counts.

    Query heads that share a key head share the schedule.
    """
    active: Any
    full: Any
    active, full = bounds_of(extras.mask, shape)
    if active.shape[1] > 1:
        split = (active.shape[0], shape.kv_heads, shape.repeat, *active.shape[2:])
        active, full = active.reshape(split).any(2), full.reshape(split).all(2)
    if by_keys:
        active, full = active.swapaxes(2, 3), full.swapaxes(2, 3)
    return full_first(active, full)


def iterate(schedule: Schedule, at_row, tile, carries):
    """Apply `tile(lane, masked, column, carry)` to a row's active blocks, for each lane. Loops that no row needs are
    left out.
    """
    order, filled, count = schedule
    row = lambda x: jnp.asarray(x)[tuple(0 if size == 1 else index for size, index in zip(x.shape, at_row))]
    columns = row(order)
    known = isinstance(order, np.ndarray)

    def step(masked):
        return lambda n, carries: [tile(lane, masked, columns[n], carry) for lane, carry in enumerate(carries)]

    if not known or filled.max() > 0:
        end = int(filled.max()) if known and filled.min() == filled.max() else row(filled)
        carries = jax.lax.fori_loop(0, end, step(False), carries)
    if not known or (count > filled).any():
        carries = jax.lax.fori_loop(row(filled), row(count), step(True), carries)
    return carries
