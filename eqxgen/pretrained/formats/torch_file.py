"""torch's .bin, .pt and .pth: a pickle of tensors, and the bytes of their storages, which are mapped.

Since torch 1.6 the file is a zip archive with a file for each storage; before, the pickle was followed by the list of
storages and their bytes.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.pretrained.formats.stored import damaged, mapped, refused
from eqxgen.pretrained.formats.torch_pickle import Storage, Tensor, loads
from eqxgen.pretrained.formats.torch_tensors import Reader
from eqxgen.pretrained.formats.zipped import Archive

PICKLE = 256 * 2**20
"""Most bytes of the pickle, which holds names and shapes alone."""

OLD = 0x1950A86A20F9469CFC6C
"""First value of a file before torch 1.6."""


def open_file(path: Path, *, beside: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """The dictionary of the file: a `Stored` for each tensor, a dictionary for each dictionary, a `Left` for an object
    that is passed over, and None for the rest.

    Args:
        path: of the file.
        beside: passes over the records of training, see `eqxgen.pretrained.formats.torch_pickle.RECORDS`.

    Raises:
        ValueError: the file is damaged or a program, or its pickle holds anything but tensors, numbers and texts, which
            is named.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    values, data = (_archived if is_zip else _old)(path, beside)
    if not isinstance(values, dict):
        got = "a tensor" if isinstance(values, Tensor) else type(values).__name__
        raise refused(path, "a dictionary of tensors", got, "save model.state_dict()")
    return Reader(path, data).dictionary(values), {}


def _archived(path: Path, beside: bool) -> tuple[Any, Any]:
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
    values, _ = loads(archive.content(names[0]), path, beside=beside)
    return values, functools.partial(_entry, archive, folder)


def _entry(archive: Archive, folder: str, storage: Storage) -> np.ndarray | None:
    place = f"{folder}data/{storage.key}"
    return archive.view(place) if place in archive.entries else None


def _old(path: Path, beside: bool) -> tuple[Any, Any]:
    """Five pickles (a magic number, a version, the machine, the value, the keys), then length and bytes by key."""
    data = mapped(path) if path.stat().st_size else np.zeros(0, np.uint8)
    head, at, values = data[:PICKLE].tobytes(), 0, []
    if not head.startswith(b"\x80"):
        raise damaged(path, "a zip archive or a pickle, as torch writes", repr(head[:8]))
    storages: dict[str, Storage] = {}
    for place in range(5):
        value, at = loads(head, path, at, storages, beside=beside)
        values.append(value)
        if place == 0 and value != OLD:
            raise refused(path, "a file of torch", "another pickle", "save model.state_dict() by torch.save")
    _, version, machine, value, keys = values
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise refused(path, "version 1001 with little-endian numbers", "another", "save the tensors again")
    parts: dict[str, np.ndarray] = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in storages:
            raise damaged(path, "the keys of storages", repr(key)[:80])
        count, size = int.from_bytes(data[at : at + 8].tobytes(), "little"), np.dtype(storages[key].kind).itemsize
        parts[key] = data[at + 8 : at + 8 + count * size]
        at += 8 + count * size
    if at != len(data):
        raise damaged(path, f"{at:,} bytes", f"{len(data):,}")
    return value, lambda storage: parts.get(storage.key)
