"""NumPy's .npz: a zip archive of .npy files. Pickled objects are refused."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from eqxgen.pretrained.formats.stored import Stored, check_entry, check_size, damaged, refused, viewed
from eqxgen.pretrained.formats.zipped import Archive

HEADER = 10_000
"""Most bytes of an array's header."""


def open_file(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays by name; those that are not compressed are mapped.

    Raises:
        ValueError: the file is damaged, or has more than arrays of numbers.
    """
    archive = Archive(path)
    arrays: dict[str, Stored] = {}
    for entry in archive.entries:
        if not entry.endswith(".npy"):
            raise refused(path, "entries that end in .npy", repr(entry[:80]), "it is not an .npz of arrays")
        name = entry.removesuffix(".npy")
        arrays[name] = _stored(archive, entry, name)
    check_size(path, arrays, archive.size)
    return arrays, {}


def _stored(archive: Archive, entry: str, name: str) -> Stored:
    shape, fortran, dtype, start = _header(archive, entry)
    check_entry(archive.path, name, shape)
    if dtype.kind not in "biuf":
        raise refused(archive.path, f"numbers in {name}", str(dtype), "save such arrays, bfloat16 too, as safetensors")
    size, claimed = archive.entries[entry].file_size, start + math.prod(shape) * dtype.itemsize
    if size != claimed:
        raise damaged(archive.path, f"{claimed:,} bytes of {name}, as its header says", f"{size:,}")
    order = "F" if fortran else "C"
    view = archive.view(entry)
    if view is not None and dtype.isnative:
        return viewed(view[start:], dtype, shape, order)

    def read(index: Any) -> np.ndarray:
        array = np.ndarray(shape, dtype, archive.content(entry), start, order=order)
        return array.astype(dtype.newbyteorder("="))[index]

    return Stored(shape, dtype.newbyteorder("="), read)


def _header(archive: Archive, entry: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran's order, type, and the place of the first value."""
    file = io.BytesIO(archive.content(entry, HEADER + 12))
    try:
        version = npy.read_magic(file)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        return *readers[version](file, max_header_size=HEADER), file.tell()
    except (ValueError, KeyError, TypeError, SyntaxError, MemoryError, OverflowError, RecursionError) as error:
        raise damaged(archive.path, f"a header of {entry}", str(error)[:200].split("\n")[0]) from None
