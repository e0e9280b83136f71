"""safetensors: 8 bytes of length, a JSON header, and the bytes of all arrays without a gap. The file is mapped."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from eqxgen.pretrained.formats.stored import Stored, check_count, check_entry, damaged, mapped, refused, viewed

HEADER = 100_000_000
"""Most bytes of a header."""

TYPES = {"BOOL": "bool", "F64": "float64", "F32": "float32", "F16": "float16", "BF16": ml_dtypes.bfloat16}
TYPES |= {f"{sign}{bits}": f"{kind}{bits}" for sign, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)}
TYPES |= {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "C64": "complex64"}
"""Types of arrays by their names in a header."""

_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


def open_file(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays by name, and the file's own description of text by text.

    Raises:
        ValueError: the file is damaged, or has more than a model has.
    """
    header, start, size = _header(path)
    description = header.pop("__metadata__", None) or {}
    if not isinstance(description, dict) or not all(isinstance(text, str) for text in description.values()):
        raise damaged(path, "__metadata__ of text by text", type(description).__name__)
    check_count(path, len(header))
    spans = sorted((*_checked(path, name, entry), name) for name, entry in header.items())
    end = 0
    for begin, stop, *_, name in spans:
        if begin != end:
            raise damaged(path, f"bytes of {name} from {end:,}, with no gap and no overlap", f"{begin:,}")
        end = stop
    if start + end != size:
        raise damaged(path, f"{start + end:,} bytes, as the header says", f"{size:,}")
    data = mapped(path)[start:]
    return {name: viewed(data[a:b], np.dtype(TYPES[kind]), shape) for a, b, kind, shape, name in spans}, description


def write(path: Path, arrays: Mapping[str, Stored], description: Mapping[str, str]) -> None:
    """Writes a file, of which one array at a time is in memory.

    Raises:
        OSError: the disk refuses.
        ValueError: an array is of a type that the format is without.
    """
    header: dict[str, Any] = {"__metadata__": dict(description)}
    # Wide types first, so that every array is aligned.
    names, end = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)), 0
    for name in names:
        stored = arrays[name]
        if stored.dtype not in _NAMES:
            raise refused(path, f"one of {', '.join(TYPES)} for {name}", stored.dtype, "convert the array")
        begin, end = end, end + math.prod(stored.shape) * stored.dtype.itemsize
        header[name] = {"dtype": _NAMES[stored.dtype], "shape": list(stored.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            data: Any = np.ascontiguousarray(arrays[name].read(...)).reshape(-1).view(np.uint8)
            file.write(data)


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, the place of the first array's bytes, and the size of the file."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(HEADER, size - 8):
            expected = f"a safetensors header of 2 to {min(HEADER, max(2, size - 8)):,} bytes"
            raise damaged(path, expected, f"{length:,} in a file of {size:,}")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "a header of JSON", str(error)[:200]) from None
    if not isinstance(header, dict):
        raise damaged(path, "a header that is a JSON object", type(header).__name__)
    return header, 8 + length, size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name is given twice")
    return values


def _checked(path: Path, name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...]]:
    """First byte, end, type and shape of an array."""
    parts: Any = entry if isinstance(entry, Mapping) else {}
    found: Any = tuple(parts.get(key) for key in ("dtype", "shape", "data_offsets"))
    kind, shape, offsets = found
    if not (isinstance(kind, str) and _counts(shape) and _counts(offsets) and len(offsets) == 2):
        raise damaged(path, f"dtype, shape and data_offsets of {name[:80]}", str(entry)[:80])
    check_entry(path, name, tuple(shape))
    if kind not in TYPES:
        raise refused(path, f"one of {', '.join(TYPES)} for {name}", kind[:80], "convert the array to one of them")
    size = math.prod(shape) * np.dtype(TYPES[kind]).itemsize
    if offsets[1] - offsets[0] != size:
        raise damaged(path, f"{size:,} bytes of {kind}{shape} for {name}", f"offsets {offsets}")
    return offsets[0], offsets[1], kind, tuple(shape)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
