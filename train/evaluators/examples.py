"""Examples that are streamed to an evaluator."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ..data import Dataset
from ..data.files.lazy import Lazy


class Examples(NamedTuple):
    """Examples that are read by number, a batch at a time.

    Attributes:
        size: how many.
        read: numbers in [0, size) -> arrays that hold an example of each number along their first axis.
        batch: how many at a time, over all devices.
    """

    size: int
    read: Callable[[Int[np.ndarray, " rows"]], Mapping[str, np.ndarray]] = lambda numbers: {}
    batch: int = 500

    @classmethod
    def of(cls, batch: int = 500, **arrays: np.ndarray | Lazy) -> "Examples":
        """Rows of arrays."""
        size = len(next(iter(arrays.values())))
        return cls(size, lambda numbers: {name: array[numbers] for name, array in arrays.items()}, batch)

    def first(self, size: int) -> "Examples":
        """The first `size`, or all where there are fewer."""
        return self._replace(size=min(size, self.size))


def held_out_images(dataset: Dataset, chosen: Bool[np.ndarray, " n"] | None = None) -> Examples:
    """`image`, in [-1, 1], and `label` of the held-out part, or of the chosen ones of it."""
    places = np.flatnonzero(np.ones(len(dataset.test_labels), bool) if chosen is None else chosen)
    return _images(dataset, dataset.test_images, dataset.test_labels, places)


def training_images(dataset: Dataset) -> Examples:
    """`image`, in [-1, 1], and `label` of the training part, without augmentation."""
    places = np.arange(len(dataset.train_labels))
    return _images(dataset, dataset.train_images, dataset.train_labels, places)


def _images(dataset: Dataset, images: np.ndarray | Lazy, labels: np.ndarray, places: Int[np.ndarray, " n"]) -> Examples:
    def read(numbers: Int[np.ndarray, " rows"]) -> dict[str, np.ndarray]:
        at = places[numbers]
        return {"image": dataset.normalise(images[at]), "label": labels[at]}

    return Examples(len(places), read)
