"""Which examples make up a batch: a function of the seed and the step, so that resuming needs no saved position."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int32, Int64


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Some places of one step's batch, for whoever makes their arrays.

    Attributes:
        step: the global step.
        index: the places in the global batch.
        example: which example stands at each of them.
    """

    step: int
    index: Int32[np.ndarray, " n"]
    example: Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Order:
    """The order of a run's examples.

    The batches cut an endless stream into pieces: the permutation of epoch 0, then that of epoch 1, and so on. No example comes twice
    within an epoch, a batch may straddle epochs and may be larger than the data. Each part costs its places, and a sort once an epoch.

    Args:
        seed: `0 <= seed < 2**64`; with the epoch it decides the permutation, nothing else does.
        batch_size: examples of all processes together.
        size: examples there are.
        process_index: this process; consecutive shares of the batch go to consecutive processes.
        process_count: processes there are; must divide `batch_size`.

    Raises:
        ValueError: an argument is out of its range.
    """

    seed: int
    batch_size: int
    size: int
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        index, count = self.process_index, self.process_count
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64): got {self.seed}")
        if self.size < 1:
            raise ValueError(f"size must be 1 or more, there is nothing to draw from: got {self.size}")
        if count < 1 or not 0 <= index < count:
            raise ValueError(f"process_index must be in [0, process_count): got process_index={index}, process_count={count}")
        if self.batch_size < 1 or self.batch_size % count:
            got = f"batch_size={self.batch_size}, process_count={count}"
            raise ValueError(f"process_count must divide batch_size, which is 1 or more: got {got}")

    @property
    def share(self) -> int:
        """Places of each batch that are this process's."""
        return self.batch_size // self.process_count

    def part(self, step: int, first: int = 0, count: int | None = None) -> Part:
        """This process's places in a step's batch: `count` of them from its own `first` on, by default all."""
        if step < 0:
            raise ValueError(f"step must be 0 or more: got {step}")
        left = self.share - first if count is None else count
        index = self.process_index * self.share + first + np.arange(left, dtype=np.int32)
        start, pieces = step * self.batch_size + int(self.process_index * self.share + first), [np.empty(0, np.int64)]
        while left:
            epoch, offset = divmod(start, self.size)
            piece = _permutation(self.seed, epoch, self.size)[offset : offset + left]
            pieces.append(piece)
            start, left = start + len(piece), left - len(piece)
        return Part(step, index, np.concatenate(pieces))

    def position(self, step: int) -> dict[str, int]:
        """Where the data stand before a step, as JSON for a checkpoint. Resuming needs the step alone; the rest is for people."""
        epoch, offset = divmod(step * self.batch_size, self.size)
        return {"step": step, "epoch": epoch, "offset": offset}


def batch_indices(
    seed: int, step: int, batch_size: int, size: int, *, process_index: int = 0, process_count: int = 1
) -> Int64[np.ndarray, " local"]:
    """The examples of global batch `step`, or of the share of one process; the arguments are those of `Order`."""
    return Order(seed, batch_size, size, process_index, process_count).part(step).example


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of raw Philox words keyed by (seed, epoch): NumPy promises these words, and not the outcome of `permutation`."""
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order
