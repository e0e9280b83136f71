"""The tables that say which tiles a row of tiles visits, as flat arrays of integers in main memory."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import blocks


@dataclasses.dataclass(frozen=True)
class Visits:
    """For each row of tiles its count, then its entries; see `blocks.visits`. `shape` is (examples, heads, rows,
    steps).
    """

    table: Any
    shape: tuple[int, ...]

    def start(self, b, h, row):
        """Where the count of a row stands; its entries follow."""
        examples, heads, rows, steps = self.shape
        return (((b if examples > 1 else 0) * heads + (h if heads > 1 else 0)) * rows + row) * (steps + 1)


def visits(some, every) -> Visits:
    """The visits of each row of tiles, given which tiles hold an allowed pair and which hold no other."""
    entries, counts = blocks.visits(some, every)
    lib: Any = np if isinstance(entries, np.ndarray) else jnp
    return Visits(jnp.asarray(lib.concatenate([counts[..., None], entries], -1)).reshape(-1), entries.shape)


def by_keys(some, every, repeat: int) -> tuple[Any, Any]:
    """The same for rows of keys: a row's columns are the query tiles of all heads that share a key head, head by
    head.
    """

    def turn(x):
        lib: Any = np if isinstance(x, np.ndarray) else jnp
        b, h, queries, keys = x.shape
        if h == 1:
            x = lib.broadcast_to(x, (b, repeat, queries, keys))
        x = x.reshape(b, x.shape[1] // repeat, repeat, queries, keys)
        return lib.moveaxis(x, 4, 2).reshape(b, -1, keys, repeat * queries)

    return turn(some), turn(every)


def flags(some, every) -> Visits:
    """0 for a tile to skip, 1 for one that needs the mask, 2 for one that does not; one entry per column and no
    count.
    """
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    table = jnp.asarray(lib.where(some, lib.where(every, 2, 1), 0).astype(np.int32))
    return Visits(table.reshape(-1), table.shape)
