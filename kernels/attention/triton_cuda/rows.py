"""Which blocks each program visits, as a list of numbers; `tile.column_of` reads it."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...masks import Mask
from .. import blocks
from .terms import in_one_run


@dataclasses.dataclass(frozen=True)
class Rows:
    """`entries`, flat, with four numbers for each row of blocks or more; `plan` is (listed, stride of examples, of
    heads, of rows).
    """

    entries: Any
    plan: tuple[int, int, int, int]


def rows_of(mask: Mask | None, sizes: tuple[int, ...], block_q: int, block_k: int, *, turned: bool) -> Rows:
    """The visits of each block of queries, or with `turned` of each block of keys."""
    some, every = blocks.spread(mask, sizes[2], sizes[3], block_q, block_k)
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    if turned:
        some, every = some.swapaxes(2, 3), every.swapaxes(2, 3)
    every = some & every
    filled, first = every.sum(-1), lib.argmax(every, -1)
    cut, first_cut = some.sum(-1) - filled, lib.argmax(some, -1)
    parts = [x.astype(np.int32)[..., None] for x in (filled, first, cut, first_cut)]
    listed = not in_one_run(mask)
    if lib is np:
        listed = not _in_one_run(every) or not _in_one_run(some)
    if listed:
        parts.append(
            lib.argsort(2 - some.astype(np.int8) - every.astype(np.int8), axis=-1, stable=True).astype(np.int32)
        )
    elif lib is np:
        # Without a filled block all lie before the first of none.
        parts[1] = np.where(filled[..., None] == 0, 1 << 30, parts[1]).astype(np.int32)
    else:
        parts[1] = jnp.where(filled[..., None] == 0, 1 << 30, parts[1]).astype(np.int32)
    entries = lib.concatenate(parts, -1)
    examples, heads, count, width = entries.shape
    plan = (int(listed), heads * count if examples > 1 else 0, count if heads > 1 else 0, width)
    return Rows(jnp.asarray(entries).reshape(-1), plan)


def _in_one_run(blocks: np.ndarray) -> bool:
    begins = np.diff(blocks.astype(np.int8), axis=-1, prepend=0) == 1
    return bool((begins.sum(-1) <= 1).all())
