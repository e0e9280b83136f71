"""Transformer blocks, stacks, and conditioning."""
