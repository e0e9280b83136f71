"""An array in a file, and the limits that every format keeps."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ARRAYS, DIMS, NAME = 100_000, 8, 512
"""Most arrays of a file, axes of an array, and characters of a name."""

BLOWN_UP, SLACK = 100, 64 * 2**20
"""Most bytes that the arrays of a compressed file unpack to, for each byte of the file, and above that."""

_HINT = "it is not a model's"


class Stored(NamedTuple):
    """An array in a file, of which parts can be read.

    Attributes:
        shape: of the whole.
        dtype: NumPy's, with `ml_dtypes` for bfloat16 and the 8-bit floats.
        read: values at an index, `...` or a tuple of slices; they may be a view of the file, which is not written to.
    """

    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[Any], np.ndarray]


def held(array: np.ndarray) -> Stored:
    """An array in memory as if it was stored."""
    return Stored(array.shape, array.dtype, array.__getitem__)


def viewed(data: np.ndarray, dtype: np.dtype, shape: tuple[int, ...], order: Any = "C") -> Stored:
    """An array whose bytes are a part of a mapped file, of any alignment."""
    return held(np.ndarray(shape, dtype, data if data.size else b"", order=order))


def mapped(path: Any) -> np.ndarray:
    """The bytes of a file, read when they are touched."""
    return np.memmap(path, np.uint8, "r")


def refused(where: object, expected: str, got: object, hint: str) -> ValueError:
    """The error of a file that is not what it should be: one printable line."""
    return ValueError(printable(f"{where}: expected {expected}, got {got}: {hint}"))


def damaged(where: object, expected: str, got: object) -> ValueError:
    """The error of a file that no program wrote whole."""
    return ValueError(printable(f"{where}: this file is damaged: expected {expected}, got {got}; fetch it again"))


def check_count(where: object, count: int) -> None:
    """Raises `ValueError` for more arrays than a model has."""
    if count > ARRAYS:
        raise refused(where, f"at most {ARRAYS:,} arrays", f"{count:,}", _HINT)


def check_entry(where: object, name: str, shape: tuple[int, ...]) -> None:
    """Raises `ValueError` for an array whose name or shape no model has."""
    if not 0 < len(name) <= NAME or not name.isprintable():
        raise refused(where, f"names of 1 to {NAME} printable characters", repr(name[:80]), _HINT)
    if name.startswith("/") or ".." in name.split("/"):
        raise refused(where, "names that are no paths to other folders", repr(name[:80]), _HINT)
    if len(shape) > DIMS:
        raise refused(where, f"at most {DIMS} axes", f"{len(shape)} of {name}", _HINT)
    if not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise refused(where, f"sizes from 0 to 2^48 of {name}", "others", _HINT)


def check_size(where: object, arrays: dict[str, Stored], size: int) -> None:
    """Raises `ValueError` for a compressed file whose arrays claim to be far more than its bytes can be."""
    claimed = sum(math.prod(stored.shape) * stored.dtype.itemsize for stored in arrays.values())
    if claimed > BLOWN_UP * size + SLACK:
        expected = f"arrays of at most {BLOWN_UP} times the {size:,} bytes of the file"
        raise refused(where, expected, f"a claim of {claimed:,} bytes", _HINT)


def printable(text: str) -> str:
    """The text with control characters escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
