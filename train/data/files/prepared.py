"""A prepared set: a folder of arrays with an index that has the SHA-256 of each. `python -m train.data prepare` writes
it.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..feed.split import in_memory
from ..images.dataset import Dataset, check_examples
from ..images.npz import read_header
from .lazy import Lazy
from .rows import Joined, Rows
from .whole import MAX_BYTES, read_bytes, read_verified

INDEX = "index.json"
FORMAT = "eqxgen-data 1"
_INDEX_BYTES = 64 * 2**20
_CURE = "prepare it again"


def is_prepared(path: Path) -> bool:
    """Whether a folder was written by `prepare`, to its end or not."""
    return any((path / name).exists() for name in (INDEX, f"unfinished-{INDEX}"))


def read_index(path: Path, kind: str) -> dict[str, Any]:
    """What the index of a prepared set of the given kind says.

    Raises:
        DataError: there is none, it is of another kind or version, or a file that it lists is missing or of another
            size.
    """
    if not (path / INDEX).exists():
        raise DataError(
            path, "a finished set", "one whose preparation was interrupted", "give the same prepare command again"
        )
    try:
        index = json.loads(read_bytes(path / INDEX, _INDEX_BYTES))
        found = (index["format"], index["kind"])
        for file in index["files"].values():
            entry = path / str(file["name"])
            if entry.parent != path or entry.name in ("", ".", ".."):
                raise DataError(path / INDEX, "files in its own folder", f"{file['name']!r}", _CURE)
            size = entry.stat().st_size if entry.is_file() else None
            if size != file["bytes"]:
                raise DataError(
                    entry, f"{file['bytes']:,} bytes", "nothing there" if size is None else f"{size:,}", _CURE
                )
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            path / INDEX, "an index that prepare wrote", f"{type(error).__name__}: {error}", _CURE
        ) from error
    if found != (FORMAT, kind):
        raise DataError(
            path / INDEX,
            f"{FORMAT} of {kind}",
            f"{found[0]} of {found[1]}",
            f"{_CURE}, or use it where {found[1]} are wanted",
        )
    return index


def read_prepared(path: Path, memory: float) -> Dataset:
    """The images of a prepared set: checked and held in memory, or left in their files where they would take more than
    `memory` bytes.

    Raises:
        DataError: see `read_index`; or an array is damaged.
    """
    index = read_index(path, "images")
    try:
        parts = {part: _part(path, index, part, memory) for part in ("train", "test")}
        names, levels = tuple(map(str, index["classes"])), int(index["levels"])
    except (KeyError, TypeError) as error:
        raise DataError(
            path / INDEX, "an index that prepare wrote", f"{type(error).__name__}: {error}", _CURE
        ) from error
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


def read_array(path: Path, file: dict[str, Any]) -> np.ndarray:
    """One array of a prepared set, in memory.

    Raises:
        DataError: its SHA-256 is not that of the index.
    """
    where = path / file["name"]
    stream = io.BytesIO(read_verified(where, file["sha256"], MAX_BYTES))
    shape, _, dtype = read_header(where, stream)
    return np.frombuffer(stream.read(), dtype).reshape(shape)


def check_prepared(path: Path) -> int:
    """Reads every file of a prepared set of any kind; gives their bytes.

    Raises:
        DataError: one differs from what was written.
    """
    kind = json.loads(read_bytes(path / INDEX, _INDEX_BYTES)).get("kind") if (path / INDEX).exists() else "images"
    files = read_index(path, str(kind))["files"].values()
    for file in files:
        read_verified(path / file["name"], file["sha256"], MAX_BYTES)
    return sum(file["bytes"] for file in files)
