"""Which examples make up a batch: a function of the seed and the step, so that resuming needs no saved position."""

import functools

import numpy as np
from jaxtyping import Int64


def batch_indices(
    seed: int, step: int, batch_size: int, size: int, *, process_index: int = 0, process_count: int = 1
) -> Int64[np.ndarray, " local"]:
    """The examples of global batch `step`, or of the share of one process: `(batch_size // process_count,)`.

    The batches cut an endless stream into pieces: the permutation of epoch 0, then that of epoch 1, and so on. No example comes twice
    within an epoch, a batch may straddle epochs and may be larger than the data. Each call costs the batch, and a sort once an epoch.

    Args:
        seed: `0 <= seed < 2**64`; with the epoch it decides the permutation, nothing else does.
        step: the global step, from 0.
        batch_size: examples of all processes together.
        size: examples there are.
        process_index: this process; consecutive shares of the batch go to consecutive processes.
        process_count: processes there are; must divide `batch_size`.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2**64): got {seed}")
    if step < 0:
        raise ValueError(f"step must be 0 or more: got {step}")
    if size < 1:
        raise ValueError(f"size must be 1 or more, there is nothing to draw from: got {size}")
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(f"process_index must be in [0, process_count): got process_index={process_index}, process_count={process_count}")
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"process_count must divide batch_size, which is 1 or more: got batch_size={batch_size}, process_count={process_count}"
        )
    share = batch_size // process_count
    start = step * batch_size + process_index * share
    pieces = []
    while share:
        epoch, offset = divmod(start, size)
        piece = _permutation(seed, epoch, size)[offset : offset + share]
        pieces.append(piece)
        start, share = start + len(piece), share - len(piece)
    return np.concatenate(pieces)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of raw Philox words keyed by (seed, epoch): NumPy promises these words, and not the outcome of `permutation`."""
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order
