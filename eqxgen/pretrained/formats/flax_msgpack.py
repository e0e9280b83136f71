"""flax's msgpack: nested dictionaries of arrays. Names are joined by slashes: `params/Dense_0/kernel`.

A checkpoint of flax has no ending of its own: rename it to `.msgpack`.

A decoder of the few types that flax writes, which copies no array: each is a view of the mapped file.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from eqxgen.pretrained.formats.stored import (
    ARRAYS,
    Stored,
    check_count,
    check_entry,
    damaged,
    held,
    mapped,
    refused,
    viewed,
)

LEVELS = 32
"""Most dictionaries within each other."""

ARRAY, SCALAR = 1, 3  # types of flax.serialization; 2 is a complex number
CHUNKED = "__msgpack_chunked_array__"
_NUMBERS = dict(zip(range(0xCA, 0xD4), (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q")))
_LENGTHS = {0xD9: "B", 0xDA: ">H", 0xDB: ">I", 0xC4: "B", 0xC5: ">H", 0xC6: ">I", 0xC7: "B", 0xC8: ">H", 0xC9: ">I"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def open_file(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays by name.

    Raises:
        ValueError: the file is damaged, or holds more than dictionaries of arrays.
    """
    data = mapped(path) if path.stat().st_size else np.zeros(0, np.uint8)
    reader = _Reader(path, data)
    try:
        values = reader.value(0)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise damaged(path, "msgpack of arrays", f"{type(error).__name__} at byte {reader.at:,}") from None
    if reader.at != len(data):
        raise damaged(path, f"{reader.at:,} bytes", f"{len(data):,}")
    if not isinstance(values, dict):
        raise refused(path, "a dictionary of arrays", type(values).__name__, "it is not a model's")
    arrays: dict[str, Stored] = {}
    _flatten(path, values, "", arrays)
    return arrays, {}


def write(path: Path, arrays: Mapping[str, Stored]) -> None:
    """Writes a file, of which one array at a time is in memory.

    Raises:
        OSError: the disk refuses.
        ValueError: an array is of a type that flax does not read, or of 4 GiB or more; or a name is a folder of others.
    """
    tree: dict[str, Any] = {}
    for name, stored in arrays.items():
        *folders, last = name.split("/")
        within = tree
        for folder in folders:
            within = within.setdefault(folder, {})
        if not isinstance(within, dict) or last in within:
            raise refused(path, "names that are no folders of others", name, "rename the array")
        if _dtype(str(stored.dtype)) is None:
            raise refused(path, f"a number of flax's for {name}", stored.dtype, "convert the array")
        within[last] = stored
    with path.open("wb") as file:
        for part in _encoded(path, tree):
            file.write(part)


def _encoded(path: Path, values: Any) -> Iterator[Any]:
    """The bytes of nested dictionaries."""
    if isinstance(values, dict):
        yield _head(0x80, 0xDE, len(values))
        for name, value in values.items():
            yield from (_text(name), *_encoded(path, value))
        return
    shape = b"".join(b"\xcf" + struct.pack(">Q", size) for size in values.shape)
    size = math.prod(values.shape) * values.dtype.itemsize
    about = b"\x93" + _head(0x90, 0xDC, len(values.shape)) + shape + _text(str(values.dtype))
    if size + len(about) + 5 >= 2**32:
        raise refused(path, "arrays of less than 4 GiB", f"one of {size:,} bytes", "write safetensors")
    about += b"\xc6" + struct.pack(">I", size)
    yield b"\xc9" + struct.pack(">Ib", size + len(about), ARRAY) + about
    yield np.ascontiguousarray(values.read(...)).reshape(-1).view(np.uint8)


def _head(small: int, large: int, count: int) -> bytes:
    """The start of a dictionary or a list."""
    return bytes([small + count]) if count < 16 else bytes([large]) + struct.pack(">H", count)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"\xda" + struct.pack(">H", len(data)) + data


def _flatten(path: Path, values: dict[str, Any], above: str, arrays: dict[str, Stored]) -> None:
    for key, value in values.items():
        name = f"{above}/{key}" if above else key
        if isinstance(value, dict) and CHUNKED not in value:
            _flatten(path, value, name, arrays)
            continue
        stored = _whole(path, name, value) if isinstance(value, dict) else value
        if not isinstance(stored, Stored):
            raise refused(path, "arrays alone", f"{type(value).__name__} as {name}", "save the parameters alone")
        check_count(path, len(arrays) + 1)
        if name in arrays:
            raise refused(path, "every array once", f"{name} twice", "it is not a model's")
        check_entry(path, name, stored.shape)
        arrays[name] = stored


def _whole(path: Path, name: str, value: dict[str, Any]) -> Stored:
    """An array that is stored in pieces of its flat form, as those above 1 GiB."""
    shape, chunks = (value.get(key) for key in ("shape", "chunks"))
    if not isinstance(shape, dict) or not isinstance(chunks, dict) or not chunks:
        raise damaged(path, f"shape and chunks of {name}", "others")
    sizes, pieces = tuple(shape.values()), list(chunks.values())
    if not all(isinstance(piece, Stored) for piece in pieces) or not all(type(n) is int and n >= 0 for n in sizes):
        raise damaged(path, f"chunks of {name}", "others")
    if sum(math.prod(piece.shape) for piece in pieces) != math.prod(sizes):
        raise damaged(path, f"{math.prod(sizes):,} entries of {name}", "another number in its chunks")
    read = lambda index: np.concatenate([piece.read(...).reshape(-1) for piece in pieces]).reshape(sizes)[index]
    return Stored(sizes, pieces[0].dtype, read)


class _Reader:
    """A decoder at a byte of a file."""

    def __init__(self, path: Path, data: np.ndarray):
        self.path, self.data, self.at, self.count = path, data, 0, 0

    def take(self, count: int) -> np.ndarray:
        """The next bytes."""
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise IndexError("the file ends")
        self.at += count
        return part

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)).tobytes())[0]

    def value(self, level: int) -> Any:
        """The next value."""
        self.count += 1
        if level > LEVELS or self.count > 16 * ARRAYS:
            raise refused(self.path, f"at most {LEVELS} levels and {16 * ARRAYS:,} values", "more", "it is no model's")
        first = self.number("B")
        if first <= 0x7F or first >= 0xE0:
            return first if first <= 0x7F else first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self.number(_NUMBERS[first])
        if first <= 0x8F or first in (0xDE, 0xDF):
            return self.dictionary(first & 15 if first <= 0x8F else self.number(">H" if first == 0xDE else ">I"), level)
        if first <= 0x9F or first in (0xDC, 0xDD):
            count = first & 15 if first <= 0x9F else self.number(">H" if first == 0xDC else ">I")
            return [self.value(level + 1) for _ in range(count)]
        if first <= 0xBF or 0xD9 <= first <= 0xDB:
            count = first & 31 if first <= 0xBF else self.number(_LENGTHS[first])
            return self.take(count).tobytes().decode("utf-8")
        if 0xC4 <= first <= 0xC6:
            return self.take(self.number(_LENGTHS[first]))
        if 0xC7 <= first <= 0xC9 or 0xD4 <= first <= 0xD8:
            return self.extension(self.number(_LENGTHS[first]) if first <= 0xC9 else 1 << (first - 0xD4), level)
        raise damaged(self.path, "a type of msgpack", f"{first:#x} at byte {self.at - 1:,}")

    def dictionary(self, count: int, level: int) -> dict[str, Any]:
        values = {}
        for _ in range(count):
            key = self.value(level + 1)
            if not isinstance(key, str) or key in values:
                raise refused(self.path, "keys that are texts, each once", str(key)[:80], "it is not a model's")
            values[key] = self.value(level + 1)
        return values

    def extension(self, length: int, level: int) -> Stored:
        """An array or a scalar: (shape, type, bytes)."""
        kind, end = self.number("b"), self.at + length
        parts = self.value(level + 1) if kind in (ARRAY, SCALAR) else None
        if not isinstance(parts, list) or len(parts) != (3 if kind == ARRAY else 2) or self.at != end:
            raise refused(self.path, "arrays and numbers alone", f"a value of type {kind}", "save the parameters alone")
        shape, name, data = parts if kind == ARRAY else ([], *parts)
        dtype = _dtype(name)
        if dtype is None or not isinstance(shape, list) or not isinstance(data, np.ndarray):
            raise refused(self.path, "arrays of numbers", str(name)[:80], "save the parameters alone")
        if not all(type(size) is int and size >= 0 for size in shape) or len(data) != math.prod(shape) * dtype.itemsize:
            raise damaged(self.path, f"{name}{shape} as its bytes", f"{len(data):,} bytes")
        return viewed(data, dtype, tuple(shape)) if data.size else held(np.zeros(shape, dtype))


def _dtype(name: Any) -> np.dtype | None:
    if not isinstance(name, str):
        return None
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return np.dtype(getattr(ml_dtypes, name))
    known = ("bool", "float16", "float32", "float64", *(f"{k}int{bits}" for k in ("", "u") for bits in (8, 16, 32, 64)))
    return np.dtype(name) if name in known else None
