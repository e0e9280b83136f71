"""Attention masks as small pytrees: no memory, whole blocks skipped, joined with `&` and `|`.

A mask is one class with four members: the axes of its arrays (`axes`), the pairs (query i, key j) it allows
(`allowed`), bounds of that over a block of pairs (`block_bounds`), and a check of its arrays against the problem
(`check`). Axes are spelled with `b` (batch), `h` (heads), `q` (queries) and `k` (keys); every array may have size 1
along `b` and `h`. A backend passes the arrays cut to its block, so a mask has no loop and is independent of backends.

Plain Python integers are part of the traced program; pass an array for a number that changes from call to call.
"""

from .base import And, Dense, Mask, Or, as_mask
from .neighborhood import Neighborhood
from .packing import Lengths, Segments
from .pattern import BlockSparse
from .positions import Causal, PrefixLM, Window

__all__ = [
    "And",
    "BlockSparse",
    "Causal",
    "Dense",
    "Lengths",
    "Mask",
    "Neighborhood",
    "Or",
    "PrefixLM",
    "Segments",
    "Window",
    "as_mask",
]
