"""The blocks of each program, as integers that `scores.column_of` reads."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...masks import Mask
from ..schedule import block_bounds, full_first
from .terms import in_one_run


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`entries`, flat, four or more for each row of blocks; `plan` is (listed, strides of examples, heads and rows).

    The four are the number of full blocks, the first of them, the number of partial blocks, the first active block. If
    `listed`, the row's columns follow, full blocks first.
    """

    entries: Any
    plan: tuple[int, int, int, int]


def schedule_of(mask: Mask | None, sizes: tuple[int, ...], q_block: int, k_block: int, *, by_keys: bool) -> Schedule:
    """The schedule of each block of queries, or of keys; `sizes` as in `launch.Problem`."""
    active, full = block_bounds(mask, sizes[2], sizes[3], q_block, k_block)
    lib: Any = np if isinstance(active, np.ndarray) else jnp
    if by_keys:
        active, full = active.swapaxes(2, 3), full.swapaxes(2, 3)
    full = active & full
    columns, filled, count = full_first(active, full)
    # Without a full block all partial ones precede the first of none.
    first = lib.where(filled == 0, 1 << 30, lib.argmax(full, -1))
    numbers = [x.astype(np.int32)[..., None] for x in (filled, first, count - filled, lib.argmax(active, -1))]
    listed = not (_in_one_run(full) and _in_one_run(active)) if lib is np else not in_one_run(mask)
    entries = lib.concatenate([*numbers, columns] if listed else numbers, -1)
    examples, heads, rows, width = entries.shape
    plan = (int(listed), heads * rows if examples > 1 else 0, rows if heads > 1 else 0, width)
    return Schedule(jnp.asarray(entries).reshape(-1), plan)


def _in_one_run(blocks: np.ndarray) -> bool:
    starts = np.diff(blocks.astype(np.int8), axis=-1, prepend=0) == 1
    return bool((starts.sum(-1) <= 1).all())
