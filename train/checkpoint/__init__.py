"""Checkpoints: Orbax writes them, asynchronously, atomically and sharded; this folder adds what it lacks.

manifest.py: no flipped bit is restored. commit.py: a step and its manifest get their name in one rename. leaves.py:
errors name the leaf and the flag. store.py: the checkpoints of a run; a damaged one is passed over for the one before,
with a loud line.
"""

from .store import Checkpoints, Restored

__all__ = ["Checkpoints", "Restored"]
