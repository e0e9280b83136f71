"""Files that are whole or absent, and what a disk that is full or failing says."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ._errors import UserError

PART = ".part"
"""Suffix of a file that is being written; a start removes what a kill left."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write into a `UserError` that names the path, the reason and the free bytes."""
    try:
        yield
    except OSError as error:
        raise UserError(unwritten(path, error.strerror or str(error))) from None


def unwritten(path: Path, reason: str) -> str:
    """What to say where nothing could be written to a path."""
    return f"{path}: cannot be written: {reason}; {free_bytes(path):,} bytes are free there: make room and give the same command again"


def free_bytes(path: Path) -> int:
    """Bytes that are free where a path is or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary name beside `path`, then renames: a reader finds the old file or the new one, never
    a part.

    Raises:
        UserError: the disk refuses; the old file, if any, is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            sync(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Removes what writers that were killed left half-written below a folder."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)
