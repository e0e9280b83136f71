"""An array in a file, and the limits that every format keeps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ARRAYS, DIMS, NAME = 100_000, 8, 512
"""Most arrays of a file, axes of an array, and characters of a name."""


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


def refused(where: object, expected: str, got: object, hint: str) -> ValueError:
    """The error of a file that is not what it should be: one printable line."""
    return ValueError(printable(f"{where}: expected {expected}, got {got}: {hint}"))


def damaged(where: object, expected: str, got: object) -> ValueError:
    """The error of a file that no program wrote whole."""
    return ValueError(printable(f"{where}: this file is damaged: expected {expected}, got {got}; fetch it again"))


def check_entry(where: object, name: str, shape: tuple[int, ...], count: int) -> None:
    """Raises `ValueError` for an array whose name or shape no model has, or one too many of them."""
    if count > ARRAYS:
        raise refused(where, f"at most {ARRAYS:,} arrays", f"{count:,}", "it is not a model's")
    if not 0 < len(name) <= NAME or not name.isprintable():
        raise refused(where, f"names of 1 to {NAME} printable characters", repr(name[:80]), "it is not a model's")
    if len(shape) > DIMS:
        raise refused(where, f"at most {DIMS} axes", f"{len(shape)} of {name}", "it is not a model's")


def printable(text: str) -> str:
    """The text with control characters escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
