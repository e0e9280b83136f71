"""Schedules in scalar memory, which the grid's index maps read (scalar prefetch)."""

import math

from jax.experimental import pallas as pl

from .. import schedule as shared
from ..schedule import Schedule

# Scalar memory is small; a longer schedule is shared by all examples and heads.
MOST_ENTRIES = 1 << 15


def schedule(active, full) -> Schedule:
    """`schedule.schedule`, of a length that fits."""
    found = shared.schedule(active, full)
    return shared.schedule(*_shared(active, full)) if _too_long(found.shape) else found


def flags(active, full):
    """`schedule.flags`, of a length that fits."""
    return shared.flags(*(_shared(active, full) if _too_long(active.shape) else (active, full)))


def _too_long(shape: tuple[int, ...]) -> bool:
    return math.prod(shape) > MOST_ENTRIES and shape[0] * shape[1] > 1


def _shared(active, full):
    return active.any((0, 1), keepdims=True), full.all((0, 1), keepdims=True)


def step(compute, inside, entry) -> None:
    """Run `compute(masked)` for an entry of the schedule, which is odd if the block needs the mask."""

    @pl.when(inside & (entry & 1 == 0))
    def _():
        compute(False)

    @pl.when(inside & (entry & 1 == 1))
    def _():
        compute(True)
