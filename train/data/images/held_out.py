"""A held-out part for sets that come without one."""

import numpy as np
from jaxtyping import Int32, Int64

from ..._errors import DataError
from ..files.lazy import Lazy

_TEST_BYTES = 2**28


def held_out(labels: Int32[np.ndarray, " n"], fraction: float, source: str) -> np.ndarray:
    """Bool `(n,)`: which examples are held out, the same on every machine.

    Of each class with at least two examples, `fraction` of them rounded down, but at least one, are drawn by the order
    of raw Philox words (NumPy promises that those never change, unlike `Generator.permutation`) and never seen in
    training.

    Raises:
        DataError: no class has two examples.
    """
    draws = np.random.Philox(key=0).random_raw(len(labels))
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            count = max(1, int(len(members) * fraction))
            mask[members[np.argsort(draws[members], kind="stable")[:count]]] = True
    if not mask.any():
        raise DataError(
            source,
            "two or more images of some class, one to hold out",
            f"{len(labels)} in as many classes",
            "add images",
        )
    return mask


def parted(
    images: np.ndarray | Lazy, labels: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray | Lazy, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, then those held out, by a mask of the latter."""
    train, held = np.flatnonzero(~test), np.flatnonzero(test)
    choose = images.choose if isinstance(images, Lazy) else images.__getitem__
    return choose(train), labels[train], *in_memory(choose(held), labels[held])


def in_memory(images: np.ndarray | Lazy, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Held-out images and labels; of those that are not in memory, the `thinned` ones are read."""
    if isinstance(images, np.ndarray):
        return images, labels
    kept = thinned(len(images), images.nbytes // len(images))
    return images[kept], labels[kept]


def thinned(count: int, row_bytes: int) -> Int64[np.ndarray, " kept"]:
    """As many of `count` held-out examples, evenly spread, as 256 MiB hold: what a set too large for the memory is
    judged by.
    """
    return np.linspace(0, count - 1, max(1, min(count, _TEST_BYTES // row_bytes))).astype(np.int64)
