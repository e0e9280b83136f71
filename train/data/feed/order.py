"""Order of the examples: a function of the seed and the step, so that resuming needs no saved position."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int32, Int64, Integer


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Some places of one step's batch, whose arrays are to be made.

    Attributes:
        step: the global step.
        index: the places in the global batch.
        example: the example at each of them.
    """

    step: int
    index: Int32[np.ndarray, " n"]
    example: Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """The order of a run's examples.

    The batches cut an endless stream into pieces: the permutation of epoch 0, then that of epoch 1, and so on. No
    example comes twice within an epoch, a batch may straddle epochs and may be larger than the data. Each part costs
    its places, and a sort once an epoch.

    Args:
        seed: `0 <= seed < 2**64`; with the epoch it decides the permutation, nothing else does.
        batch_size: examples of all processes together.
        size: examples there are.
        rows: the places of each batch that this process makes; all by default.

    Raises:
        ValueError: an argument is out of its range.
    """

    seed: int
    batch_size: int
    size: int
    rows: Integer[np.ndarray, " share"] | None = None

    def __post_init__(self):
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64): got {self.seed}")
        if self.size < 1:
            raise ValueError(f"size must be 1 or more, there is nothing to draw from: got {self.size}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more: got batch_size={self.batch_size}")

    @functools.cached_property
    def places(self) -> Int32[np.ndarray, " share"]:
        """The places of each batch that are this process's."""
        return np.arange(self.batch_size, dtype=np.int32) if self.rows is None else self.rows.astype(np.int32)

    def part(self, step: int, chosen: slice = slice(None)) -> Part:
        """This process's places in a step's batch, or a slice of them."""
        if step < 0:
            raise ValueError(f"step must be 0 or more: got {step}")
        index = self.places[chosen]
        epochs, offsets = np.divmod(step * self.batch_size + index.astype(np.int64), self.size)
        example = np.empty(len(index), np.int64)
        for epoch in np.unique(epochs):
            example[epochs == epoch] = _permutation(self.seed, int(epoch), self.size)[offsets[epochs == epoch]]
        return Part(step, index, example)

    def position(self, step: int) -> dict[str, int]:
        """Place in the data before a step, as JSON for a checkpoint. Resuming needs the step alone; the rest is for
        people.
        """
        epoch, offset = divmod(step * self.batch_size, self.size)
        return {"step": step, "epoch": epoch, "offset": offset}


def batch_indices(
    seed: int, step: int, batch_size: int, size: int, *, process_index: int = 0, process_count: int = 1
) -> Int64[np.ndarray, " local"]:
    """The examples of global batch `step`, or of the equal share of one process: `(batch_size // process_count,)`.

    Consecutive shares of the batch go to consecutive processes. The other arguments are those of `Order`.

    Raises:
        ValueError: an argument is out of its range.
    """
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be in [0, process_count): got process_index={process_index}, "
            f"process_count={process_count}"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"process_count must divide batch_size, which is 1 or more: got batch_size={batch_size}, "
            f"process_count={process_count}"
        )
    share = batch_size // process_count
    return Order(seed, batch_size, size).part(step, slice(process_index * share, (process_index + 1) * share)).example


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of raw Philox words keyed by (seed, epoch): NumPy promises these words, and not the outcome of
    `permutation`.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order
