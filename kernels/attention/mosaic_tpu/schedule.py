"""Schedules in scalar memory, which the grid's index maps read (scalar prefetch)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from .. import schedule as shared
from ..schedule import Schedule
from .tiling import Tiled

# Scalar memory is small; a longer schedule is shared by all examples and heads.
MOST_ENTRIES = 1 << 15


@dataclasses.dataclass(frozen=True)
class Plan(Schedule):
    """A schedule whose entry has below the column a bit for each active part of the block, and below these 1 if the
    block needs the mask.

    Attributes:
        whole: some block needs no mask, as far as known while tracing.
        partial: some block needs it.
    """

    parts: int
    whole: bool
    partial: bool

    def column(self, entry):
        """The column of an entry."""
        return entry >> (self.parts + 1)

    def run(self, inside, entry, whole, part) -> None:
        """`whole()` for a block that needs no mask, `part(n)` for each active part of one that does."""
        if self.whole:
            pl.when(inside & (entry & 1 == 0))(whole)
        if not self.partial:
            return

        def turn(n, _):
            pl.when((entry >> (n + 1)) & 1 == 1)(lambda: part(n))

        @pl.when(inside & (entry & 1 == 1))
        def _():
            if self.parts == 1:
                part(0)
            else:
                jax.lax.fori_loop(0, self.parts, turn, None)


def bounds_of(mask: Any, shape: Tiled) -> tuple[Any, Any]:
    """`schedule.block_bounds` of each part, as (b, h, q_blocks, kv_blocks, parts)."""
    both = shared.block_bounds(mask, shape.q_seq, shape.kv_seq, shape.q_block, shape.part)
    lib: Any = np if isinstance(both[0], np.ndarray) else jnp
    missing = shape.kv_blocks * shape.parts - both[0].shape[3]
    padded = (lib.pad(x, [(0, 0)] * 3 + [(0, missing)]) for x in both)
    active, full = (x.reshape(*x.shape[:3], shape.kv_blocks, shape.parts) for x in padded)
    return active, full


def by_keys(x, spans: int):
    """(b, h, q_blocks, kv_blocks, parts) as (b, h, spans * kv_blocks, q_blocks / spans, parts): a row for each span of
    queries and block of keys.
    """
    lib: Any = np if isinstance(x, np.ndarray) else jnp
    b, h, rows, columns, parts = x.shape
    x = lib.pad(x, [(0, 0)] * 2 + [(0, -rows % spans)] + [(0, 0)] * 2)
    return x.reshape(b, h, spans, -1, columns, parts).swapaxes(3, 4).reshape(b, h, spans * columns, -1, parts)


def schedule(active, full) -> Plan:
    """The schedule of the active blocks in each row, of a length that fits."""
    if _too_long(active.any(-1).shape):
        active, full = _shared(active, full)
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    count = active.shape[-1]
    bits = sum(active[..., n].astype(np.int32) << n for n in range(count))
    active, full = active.any(-1), full.all(-1)
    found, counts = shared.entries(active, full)
    found = (((found >> 1) << count | lib.take_along_axis(bits, found >> 1, axis=-1)) << 1) | (found & 1)
    table = jnp.asarray(lib.concatenate([counts[..., None], found], -1)).reshape(-1)
    known = lib is np
    whole, partial = not known or bool((active & full).any()), not known or bool((active & ~full).any())
    return Plan(table, found.shape, count, whole, partial)


def flags(active, full) -> Any:
    """`schedule.flags` of the blocks, of a length that fits."""
    if _too_long(active.any(-1).shape):
        active, full = _shared(active, full)
    return shared.flags(active.any(-1), full.all(-1))


def _too_long(shape: tuple[int, ...]) -> bool:
    return math.prod(shape) > MOST_ENTRIES and shape[0] * shape[1] > 1


def _shared(active, full):
    return active.any((0, 1), keepdims=True), full.all((0, 1), keepdims=True)
