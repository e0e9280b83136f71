"""Files that are written whole or not at all, and the message of a disk that is full or failing."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eqxgen._files import PART, atomic, part_of

from ._errors import UserError


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


def check_writable(path: Path, flag: str) -> None:
    """Makes and removes an empty file where a file is to be written, or in the nearest folder above that exists.

    Raises:
        UserError: nothing can be written there; the message begins with the flag.
    """
    if path.is_dir():
        raise UserError(f"{flag} {path}: must be a file: it is a folder")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    part = part_of(folder / path.name)
    try:
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be written: {error.strerror or error}") from None


def unwritten(path: Path, reason: str) -> str:
    """The message of a failed write."""
    free = f"{free_bytes(path):,} bytes are free there"
    return f"{path}: cannot be written: {reason}; {free}: make room and give the same command again"


def free_bytes(path: Path) -> int:
    """Free bytes at a path that exists or is to be made."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def remove_parts(folder: Path) -> None:
    """Removes the half-written files and folders of killed processes below a folder."""
    for part in [*folder.rglob(f".*{PART}")]:
        if part.is_dir():
            shutil.rmtree(part)
        else:
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


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8 as one step. `UserError` where the file cannot be written."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))
