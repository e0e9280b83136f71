"""Dot-product attention."""

from .api import dot_product_attention
from .bias import ALiBi

__all__ = ["ALiBi", "dot_product_attention"]
