"""Attention masks as small pytrees: they cost no memory, skip whole blocks, and join with `&` and `|`.

A leaf mask is one class with four members: its arrays, named by the axes they run over (`axes`), whether the pair
(query i, key j) is allowed (`allowed`), what a rectangle of pairs holds (`touch`), and whether its arrays fit the
problem (`check`). Axes are spelled with `b` (batch), `h` (heads), `q` (queries) and `k` (keys); every array may have
size 1 along `b` and `h`. Backends hand a mask its own arrays cut to the tile at hand, so a mask holds no loop and knows
no backend.

Plain Python integers are part of the traced program; pass an array for a number that changes from call to call.
"""

from .algebra import And, Or, as_mask
from .base import Mask
from .dense import Dense
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
    "Or",
    "PrefixLM",
    "Segments",
    "Window",
    "as_mask",
]
