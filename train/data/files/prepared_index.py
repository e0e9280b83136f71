"""Index of a prepared set: a folder of arrays with the SHA-256 of each. `python -m train.data prepare` writes it."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..._errors import DataError
from .contents import MAX_BYTES, read_bytes, read_verified
from .npz import read_header

INDEX = "index.json"
DRAFT = f"unfinished-{INDEX}"
FORMAT = "eqxgen-data 1"
HINT = "prepare it again"
_INDEX_BYTES = 64 * 2**20


def is_prepared(path: Path) -> bool:
    """True for a folder of `prepare`, finished or not."""
    return any((path / name).exists() for name in (INDEX, DRAFT))


def read_index(path: Path, kind: str | None = None) -> dict[str, Any]:
    """The index of a prepared set of the given kind: images or tokens.

    Raises:
        DataError: there is none, it is of another kind or version, or a file that it lists is missing or of another
            size.
    """
    if not (path / INDEX).exists():
        got = "one whose preparation was interrupted"
        raise DataError(path, "a finished set", got, "give the same prepare command again")
    with index_errors(path):
        index = json.loads(read_bytes(path / INDEX, _INDEX_BYTES))
        found = (index["format"], index["kind"])
        for file in index["files"].values():
            _check_size(path, str(file["name"]), file["bytes"])
    if found != (FORMAT, kind or found[1]):
        hint = f"{HINT}, or use it where {found[1]} are wanted"
        raise DataError(path / INDEX, f"{FORMAT} of {kind or found[1]}", f"{found[0]} of {found[1]}", hint)
    return index


@contextlib.contextmanager
def index_errors(path: Path) -> Iterator[None]:
    """What an index lacks, or has of another type, as a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        raise DataError(path / INDEX, "an index that prepare wrote", got, HINT) from error


def _check_size(folder: Path, name: str, size: int) -> None:
    path = folder / name
    if path.parent != folder or path.name in ("", ".", ".."):
        raise DataError(folder / INDEX, "files in its own folder", f"{name!r}", HINT)
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise DataError(path, f"{size:,} bytes", "nothing there" if found is None else f"{found:,}", HINT)


def read_array(path: Path, file: dict[str, Any]) -> np.ndarray:
    """One array of a prepared set, in memory.

    Raises:
        DataError: its SHA-256 is not that of the index.
    """
    where = path / file["name"]
    stream = io.BytesIO(read_verified(where, file["sha256"], MAX_BYTES))
    shape, _, dtype = read_header(where, stream)
    return np.frombuffer(stream.read(), dtype).reshape(shape)


def check_prepared(path: Path) -> dict[str, Any]:
    """The index of a prepared set of any kind, after every file was read and compared with its SHA-256.

    Raises:
        DataError: see `read_index`; or a file was altered.
    """
    index = read_index(path)
    for file in index["files"].values():
        read_verified(path / file["name"], file["sha256"], MAX_BYTES)
    return index
