"""The manifest of a checkpoint: the size and SHA-256 of each of its files, written before the step gets its name.

Orbax restores a flipped bit as another number without an error. Every listed step has a manifest, because both get
their name in one rename; so a step without one was tampered with, and counts as damaged like any other whose files
differ from the manifest.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eqxgen._files import sync

from .._errors import UserError

NAME = "manifest.json"
VERSION = 1


def seal(folder: Path, step: int) -> None:
    """Writes the manifest of a complete step, and waits until every file and name below the folder is on the disk.

    Raises:
        OSError: the disk refuses.
    """
    (folder / NAME).write_text(_render({"version": VERSION, "step": step, "files": _sums(folder)}), encoding="utf-8")
    with ThreadPoolExecutor() as pool:
        list(pool.map(sync, [folder, *folder.rglob("*")]))


def damage(folder: Path) -> str | None:
    """The damage of a step, with the file and the tensor if it belongs to one; `None` of a whole step.

    Raises:
        UserError: the step is whole but of a format that this version does not know.
    """
    try:
        values = _read(folder / NAME)
        if values["version"] != VERSION:
            raise UserError(
                f"checkpoint {folder}: is in format {values['version']}, and this eqxgen reads format {VERSION}: "
                "use the version that wrote it, or another --run-dir"
            )
        return _difference(folder, values)
    except OSError as error:
        return f"file {_relative(folder, error.filename)} cannot be read: {error.strerror}"


def _difference(folder: Path, values: dict[str, Any]) -> str | None:
    if values.get("fault"):
        return values["fault"]
    if str(values["step"]) != folder.name:
        return f"it is of step {values['step']}, not {folder.name}"
    expected, found = values["files"], _sums(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"file {name} is missing{_tensor(name)}"
        if name not in expected:
            return f"file {name} is not in the manifest{_tensor(name)}"
        (size, digest), (size_now, digest_now) = expected[name], found[name]
        if size_now != size:
            return f"file {name} has {size_now:,} bytes, expected {size:,}{_tensor(name)}"
        if digest_now != digest:
            return f"file {name} was altered: SHA-256 {digest_now[:16]}, expected {digest[:16]}{_tensor(name)}"
    return None


def _read(path: Path) -> dict[str, Any]:
    """The manifest, or with the key `fault` what is wrong with it."""
    if not path.is_file():
        return {"version": VERSION, "fault": f"file {NAME} is missing"}
    data = path.read_bytes()
    try:
        values = json.loads(data)
        del values["sum"]
        if _render(values).encode() == data and {"version", "step", "files"} <= values.keys():
            return values
    except (ValueError, KeyError, TypeError):
        pass
    return {"version": VERSION, "fault": f"file {NAME} was altered"}


def _render(values: dict[str, Any]) -> str:
    """The one text of a manifest, with a sum of itself, so that no byte of it can change unseen."""
    text = json.dumps(values, indent=0)
    return json.dumps(values | {"sum": hashlib.sha256(text.encode()).hexdigest()}, indent=0)


def _sums(folder: Path) -> dict[str, list]:
    """Size and SHA-256 of every file below a folder but the manifest, by relative path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / NAME]
    with ThreadPoolExecutor() as pool:
        return dict(zip((_relative(folder, path) for path in paths), pool.map(_sum, paths)))


def _sum(path: Path) -> list:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _relative(folder: Path, path: str | Path) -> str:
    return Path(path).relative_to(folder).as_posix()


def _tensor(name: str) -> str:
    """Names the tensor of a file of the form state/TENSOR/..., which each of them has a folder for."""
    parts = name.split("/")
    return f", of tensor {parts[1]}" if len(parts) > 2 and parts[0] == "state" else ""
