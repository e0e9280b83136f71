"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Suffix of a file that is being written."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside the target, renamed to it at the end: a reader finds the old file or the new one.

    The file has the umask's mode, also where a library writes it with one of its own.

    Raises:
        OSError: the folder or the file cannot be written. After an error the old file is untouched and no part is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
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


def part_of(path: Path) -> Path:
    """A new temporary path beside a file or folder that is to be written."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{PART}")


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
