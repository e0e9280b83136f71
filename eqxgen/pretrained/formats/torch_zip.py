"""torch's .bin, .pt and .pth: a zip archive of a pickle and a file of bytes for each storage, which is mapped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from eqxgen.pretrained.formats.stored import ARRAYS, Stored, check_entry, damaged, held, refused
from eqxgen.pretrained.formats.torch_pickle import Storage, Tensor, loads
from eqxgen.pretrained.formats.zipped import Archive

PICKLE = 256 * 2**20
"""Most bytes of the pickle, which holds names and shapes alone."""


def open_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The dictionary of the file, with a `Stored` for each tensor.

    Raises:
        ValueError: the file is damaged, is of an older version of torch or a program, or its pickle holds anything but
            tensors, numbers and texts, which is named.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            hint = "files of torch before 1.6 must be saved again by a newer one, best as safetensors"
            raise refused(path, "a zip archive, as torch writes", "another file", hint)
    archive = Archive(path)
    names = [name for name in archive.entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise refused(path, "one data.pkl, as torch writes", f"{len(names)}", "it is no file of torch")
    folder, info = names[0].removesuffix("data.pkl"), archive.entries[names[0]]
    order = archive.content(f"{folder}byteorder", 8) if f"{folder}byteorder" in archive.entries else b"little"
    if order != b"little":
        raise refused(path, "little-endian numbers", repr(order), "save the tensors again on a common machine")
    if info.file_size > PICKLE or archive.view(names[0]) is None:
        raise refused(
            path, f"a pickle of at most {PICKLE:,} bytes, not compressed", "another", "it is no file of torch"
        )
    values = loads(archive.content(names[0]), path)
    if not isinstance(values, dict):
        raise refused(path, "a dictionary of tensors", _kind(values), "save model.state_dict()")
    return _Reader(archive, folder).dictionary(values), {}


class _Reader:
    """Tensors of an archive as stored arrays."""

    def __init__(self, archive: Archive, folder: str):
        self.archive, self.folder, self.count = archive, folder, 0
        self.open: set[int] = set()

    def dictionary(self, values: dict[Any, Any]) -> dict[str, Any]:
        """A dictionary with arrays and dictionaries, in which every other value is None."""
        if id(values) in self.open or len(self.open) > 8:
            raise refused(self.archive.path, "dictionaries in at most 8 levels", "a circle or more", "it is no model's")
        self.open.add(id(values))
        found: dict[str, Any] = {}
        for key, value in values.items():
            name, self.count = str(key), self.count + 1
            if self.count > ARRAYS:  # one dictionary may be at many places
                raise refused(self.archive.path, f"at most {ARRAYS:,} values", "more", "it is not a model's")
            if isinstance(value, Tensor):
                found[name] = self.stored(value, name)
            else:
                found[name] = self.dictionary(value) if isinstance(value, dict) else None
        self.open.discard(id(values))
        return found

    def stored(self, tensor: Tensor, name: str) -> Stored:
        check_entry(self.archive.path, name, tensor.shape, 1)
        if len(tensor.strides) != len(tensor.shape):
            raise damaged(self.archive.path, f"a stride for each axis of {name}", str(tensor.strides)[:80])
        entries = self.entries(tensor.storage, name)
        size = math.prod(tensor.shape)
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides))
        if size and (last >= len(entries) or size > len(entries)):
            expected = f"at most the {len(entries):,} entries of its storage in {name}"
            raise damaged(self.archive.path, expected, f"{size:,} up to {last:,}")
        if not size:
            return held(np.zeros(tensor.shape, entries.dtype))
        strides = [stride * entries.itemsize for stride in tensor.strides]
        return held(as_strided(entries[tensor.offset :], tensor.shape, strides, writeable=False))

    def entries(self, storage: Storage, name: str) -> np.ndarray:
        """The entries of a storage."""
        place = f"{self.folder}data/{storage.key}"
        data = self.archive.view(place) if place in self.archive.entries else None
        kind = np.dtype(storage.kind)
        size = storage.count * (1 if storage.in_bytes else kind.itemsize)
        if data is None or len(data) < size or size % kind.itemsize:
            got = "none" if data is None else f"{len(data):,}"
            raise damaged(self.archive.path, f"{size:,} bytes of {name} in {place}, not compressed", got)
        return np.ndarray((size // kind.itemsize,), kind, data if size else b"")


def _kind(value: Any) -> str:
    return "a tensor" if isinstance(value, Tensor) else type(value).__name__
