"""Images of a prepared set: in memory, or read row by row from its files."""

from pathlib import Path
from typing import Any

import numpy as np

from ..files.lazy import Lazy
from ..files.prepared_index import index_errors, read_array, read_index
from ..files.rows import Joined, Rows
from .dataset import Dataset, check_examples
from .held_out import in_memory


def read_prepared(path: Path, memory: float) -> Dataset:
    """The images of a prepared set: checked and held in memory, or left in their files where they would take more than
    `memory` bytes.

    Raises:
        DataError: see `read_index`; or an array is damaged.
    """
    index = read_index(path, "images")
    with index_errors(path):
        parts = {part: _part(path, index, part, memory) for part in ("train", "test")}
        names, levels = tuple(map(str, index["classes"])), int(index["levels"])
    test_images, test_labels = in_memory(*parts["test"])
    for images, labels in (parts["train"], (test_images, test_labels)):
        check_examples(path, images, labels, len(names))
    return Dataset(path.resolve().name, *parts["train"], test_images, test_labels, names, levels)


def _part(path: Path, index: dict[str, Any], part: str, memory: float) -> tuple[np.ndarray | Lazy, np.ndarray]:
    files = [index["files"][name] for name in index["parts"][part]["images"]]
    labels = read_array(path, index["files"][index["parts"][part]["labels"]])
    if sum(file["bytes"] for file in files) > memory:
        return Joined([Rows.of_npy(path / file["name"]) for file in files]), labels
    return np.concatenate([read_array(path, file) for file in files]), labels
