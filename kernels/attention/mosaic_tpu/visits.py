"""The lists of visits in scalar memory, and the walk along them."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from .. import blocks

# Scalar memory is small; longer lists are shared by all examples and heads.
MOST_ENTRIES = 1 << 15


@dataclasses.dataclass(frozen=True)
class Visits:
    """For each row of blocks its count, then its entries, all in one list; see `blocks.visits`."""

    table: Any
    shape: tuple[int, int, int, int]

    @property
    def steps(self) -> int:
        return self.shape[3]

    def start(self, b, h, row):
        """Where the count of a row stands; its entries follow."""
        examples, heads, rows, steps = self.shape
        return (((b if examples > 1 else 0) * heads + (h if heads > 1 else 0)) * rows + row) * (steps + 1)


def visits(some, every) -> Visits:
    """The visits of each row of blocks, given which blocks hold an allowed pair and which hold no other."""
    entries, counts = blocks.visits(some, every)
    if math.prod(entries.shape) > MOST_ENTRIES and entries.shape[0] * entries.shape[1] > 1:
        entries, counts = blocks.visits(*_shared(some, every))
    lib: Any = np if isinstance(entries, np.ndarray) else jnp
    return Visits(jnp.asarray(lib.concatenate([counts[..., None], entries], -1)), entries.shape)


def flags(some, every):
    """(b, h, rows, columns): 0 for a block to skip, 1 for one that needs the mask, 2 for one that does not."""
    if math.prod(some.shape) > MOST_ENTRIES:
        some, every = _shared(some, every)
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    return lib.where(some, lib.where(every, 2, 1), 0).astype(np.int32)


def _shared(some, every):
    return some.any((0, 1), keepdims=True), every.all((0, 1), keepdims=True)


def visit(step, inside, entry) -> None:
    """Run `step(masked)` for an entry of the list, odd where the block needs the mask."""

    @pl.when(inside & (entry & 1 == 0))
    def _():
        step(False)

    @pl.when(inside & (entry & 1 == 1))
    def _():
        step(True)
