"""Files of published weights, one format a file: each gives its arrays by name, of which parts are read on demand.

Nothing of a file is run, and no object is made by a name that a file holds. A file that is damaged, or that has more
than a model has, is a `ValueError` of one line with its name, the expectation, what came and the hint.
"""

import fnmatch
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eqxgen.pretrained.formats.stored import Stored, refused
from eqxgen.pretrained.formats.torch_pickle import Left

FORMATS = {
    ".safetensors": "safetensors",
    ".bin": "torch_file",
    ".pt": "torch_file",
    ".pth": "torch_file",
    ".ckpt": "torch_file",
    ".npz": "npz",
    ".msgpack": "flax_msgpack",
    ".h5": "keras_h5",
    ".hdf5": "keras_h5",
}
"""Module by ending of a file's name."""

ARCHIVES = (".gz", ".tar", ".tgz", ".zip", ".bz2", ".xz", ".zst", ".7z")
"""Endings of archives, which are not unpacked."""

_HINT = "give a file of published weights"


BESIDE = {
    "*optim*": "state of the optimiser",
    "*schedul*": "state of the schedule of rates",
    "*": "not of the dictionary that is read",
}
"""Reason by pattern of names beside the dictionary that is read."""


def open_file(path: str | Path, key: str | None = None) -> dict[str, Stored]:
    """The arrays of a file by name; none is read yet. The arguments are those of `opened`."""
    return opened(path, key)[0]


def opened(path: str | Path, key: str | None = None) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays of a file by name, of which none is read yet; and by name the reason for what is beside them.

    Args:
        path: of the file; its ending names the format.
        key: of the dictionary within a file that holds several, such as "state_dict" or "ema" of a torch checkpoint;
            of nested ones with a slash between.

    Raises:
        ValueError: the file is of another format, is damaged, or holds more than arrays. With `key`, the records that
            trainers keep beside the dictionary of a torch checkpoint are left out, by name.
        ModuleNotFoundError: the package of the format is not installed.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        hint = "unpack it, and give the file within" if path.suffix in ARCHIVES else _HINT
        raise refused(path, f"a file that ends in {', '.join(FORMATS)}", path.suffix or "no ending", hint)
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected the weights of a published model")
    module = importlib.import_module(f"{__name__}.{FORMATS[path.suffix]}")
    options = {"beside": True} if key is not None and FORMATS[path.suffix] == "torch_file" else {}
    try:
        found = module.open_file(path, **options)[0]
    except ValueError:
        if (other := _other(path)) is not None:
            raise refused(path, "a file of weights", *other) from None
        raise
    return _chosen(path, found, key)


def _other(path: Path) -> tuple[str, str] | None:
    """What a file is that cannot be read, by its first bytes, and the hint."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer to one, as Git leaves it without LFS", "run git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page", "fetch the file itself"
    if head[257:262] == b"ustar" or head.startswith((b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "an archive or a compressed file", "unpack it, and give the file within"
    return None


def _reason(name: str, value: Any = None) -> str:
    reason = next(reason for pattern, reason in BESIDE.items() if fnmatch.fnmatchcase(name, pattern))
    kinds = sorted(set(_kinds(value))) if reason == BESIDE["*"] else []
    return f"a record of training, {_some(kinds)}, which is not read" if kinds else reason


def _kinds(value: Any) -> Iterator[str]:
    """Classes of the objects that are passed over."""
    if isinstance(value, Left):
        yield value.name
    for part in value.values() if isinstance(value, dict) else ():
        yield from _kinds(part)


def _chosen(path: Path, arrays: dict[str, Any], key: str | None) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays of one dictionary of a file, and the reasons for the others."""
    found = dict(_dictionaries(arrays))
    if key is None:
        full = [name for name, values in found.items() if any(isinstance(value, Stored) for value in values.values())]
        full = [name for name in full if _reason(name.split("/")[0]) == BESIDE["*"]] or full
        if "" not in full and len(full) != 1:
            raise refused(path, "one dictionary of arrays", f"several: {_some(full)}", "choose one by key=")
        key = "" if "" in full else full[0]
    if key not in found:
        raise refused(path, f"key to be one of {_some(found)}", repr(key), "choose another")
    if others := [_said(name, value) for name, value in found[key].items() if not isinstance(value, Stored)]:
        raise refused(path, "arrays alone", f"{_some(others)} beside them", "save the arrays alone, as safetensors")
    if not found[key]:
        raise refused(path, "arrays", "none", _HINT)
    first = key.split("/")[0]
    return found[key], {name: _reason(name, value) for name, value in arrays.items() if key and name != first}


def _said(name: str, value: Any) -> str:
    return f"{name} of {value.name}" if isinstance(value, Left) else name


def _dictionaries(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield above, values
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _dictionaries(value, f"{above}/{name}" if above else name)


def _some(names: Iterable[str]) -> str:
    names = [name or "the whole" for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"
