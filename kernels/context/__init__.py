"""Attention over a sequence that is sharded over a mesh axis."""

from .api import context_attention
from .order import from_zigzag, to_zigzag

__all__ = ["context_attention", "from_zigzag", "to_zigzag"]
