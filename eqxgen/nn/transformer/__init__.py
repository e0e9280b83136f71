"""Transformer blocks, stacks of them, and what conditions them."""
