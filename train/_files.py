"""Files that are written whole or not at all, and the message of a disk that is full or failing."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._errors import UserError

PART = ".part"
"""Suffix of a file that is being written; the next start removes what a killed process left."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside the target, renamed to it at the end: a reader finds the old file or the new one.

    The file has the umask's mode, also where a library writes it with one of its own.

    Raises:
        OSError: the folder or the file cannot be written. After an error the old file is untouched and no part is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{PART}")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary path beside the target, and renames it.

    Raises:
        UserError: the disk refuses; the old file, if any, is untouched.
    """
    with writing(path), atomic(path) as part:
        write(part)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write into a `UserError` with the path, the reason and the free bytes."""
    try:
        yield
    except OSError as error:
        raise UserError(unwritten(path, error.strerror or str(error))) from None


def unwritten(path: Path, reason: str) -> str:
    """The message of a failed write."""
    free = f"{free_bytes(path):,} bytes are free there"
    return f"{path}: cannot be written: {reason}; {free}: make room and give the same command again"


def free_bytes(path: Path) -> int:
    """Free bytes at a path that exists or is to be made."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Removes the half-written files of killed processes below a folder."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run.

    Raises:
        UserError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: is {path.parent} the folder of a run?") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from None


def write_json(path: Path, values: Any) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        UserError: the disk refuses.
    """
    write_atomically(path, lambda part: part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8"))
