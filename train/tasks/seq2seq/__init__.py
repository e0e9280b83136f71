"""Pairs of texts: their tokens, the loss of a target, and texts that are written after a source."""
