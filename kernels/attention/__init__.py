"""Dot-product attention."""

from .api import dot_product_attention
from .problem import ALiBi

__all__ = ["ALiBi", "dot_product_attention"]
