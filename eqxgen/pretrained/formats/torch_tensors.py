"""Tensors of torch's files as stored arrays: strided views of the bytes of their storages."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from eqxgen.pretrained.formats.stored import Stored, check_count, check_entry, damaged, held, refused
from eqxgen.pretrained.formats.torch_pickle import Left, Storage, Tensor

DICTIONARIES, LEVELS = 10_000, 8
"""Most dictionaries of a file, and within each other."""


class Reader:
    """Tensors of a pickle as stored arrays.

    Args:
        path: of the file, for messages.
        data: the bytes of a storage; None if there are none.
    """

    def __init__(self, path: Path, data: Callable[[Storage], np.ndarray | None]):
        self.path, self.data, self.count, self.dictionaries = path, data, 0, 0
        self.open: set[int] = set()

    def dictionary(self, values: dict[Any, Any]) -> dict[str, Any]:
        """A dictionary with arrays and dictionaries, in which every other value but a `Left` is None; what has a class
        for its key is one.
        """
        self.dictionaries += 1  # one may be at many places
        if id(values) in self.open or len(self.open) > LEVELS or self.dictionaries > DICTIONARIES:
            expected = f"at most {DICTIONARIES:,} dictionaries in {LEVELS} levels"
            raise refused(self.path, expected, "a circle or more", "it is not a model's")
        self.open.add(id(values))
        found: dict[str, Any] = {}
        for key, value in values.items():
            name = key.name if isinstance(key, Left) else str(key)
            if isinstance(key, Left) or isinstance(value, Left):
                found[name] = key if isinstance(key, Left) else value
            elif isinstance(value, Tensor):
                found[name] = self.stored(value, name)
            else:
                found[name] = self.dictionary(value) if isinstance(value, dict) else None
        self.open.discard(id(values))
        return found

    def stored(self, tensor: Tensor, name: str) -> Stored:
        self.count += 1
        check_count(self.path, self.count)
        check_entry(self.path, name, tensor.shape)
        if len(tensor.strides) != len(tensor.shape):
            raise damaged(self.path, f"a stride for each axis of {name}", str(tensor.strides)[:80])
        entries = self.entries(tensor.storage, name)
        size = math.prod(tensor.shape)
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides))
        if size and (last >= len(entries) or size > len(entries)):
            expected = f"at most the {len(entries):,} entries of its storage in {name}"
            raise damaged(self.path, expected, f"{size:,} up to {last:,}")
        if not size:
            return held(np.zeros(tensor.shape, entries.dtype))
        strides = [stride * entries.itemsize for stride in tensor.strides]
        return held(as_strided(entries[tensor.offset :], tensor.shape, strides, writeable=False))

    def entries(self, storage: Storage, name: str) -> np.ndarray:
        """The entries of a storage."""
        data, kind = self.data(storage), np.dtype(storage.kind)
        size = storage.count * (1 if storage.in_bytes else kind.itemsize)
        if data is None or len(data) < size or size % kind.itemsize:
            got = "none" if data is None else f"{len(data):,}"
            raise damaged(self.path, f"{size:,} bytes of {name} in storage {storage.key}, not compressed", got)
        return np.ndarray((size // kind.itemsize,), kind, data if size else b"")
