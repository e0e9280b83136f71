"""Reading a file once, and writing one whole or not at all."""

import contextlib
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError

MAX_BYTES = 8 * 2**30


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The whole file, read once: what is checked is what is used, even if the file changes meanwhile.

    Raises:
        DataError: the file cannot be read, is empty, or is longer than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1) if size <= limit else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(path, "a readable file", f"{reason}", "check the path and its permissions") from error
    if size > limit or len(data) > limit:
        raise DataError(
            path, f"at most {limit:,} bytes", f"{max(size, len(data)):,}", "this is another file; fetch it again"
        )
    if not data:
        raise DataError(path, "data", "an empty file", "fetch it again")
    return data


def read_verified(path: Path, sha256: str, limit: int) -> bytes:
    """`read_bytes`, refused unless its SHA-256 is the known one.

    Raises:
        DataError: as `read_bytes`, or the file differs from the published one.
    """
    data = read_bytes(path, limit)
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise DataError(
            path,
            f"SHA-256 {sha256}",
            found,
            f"it is truncated or altered ({len(data):,} bytes); delete it and fetch it again",
        )
    return data


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[io.BufferedWriter]:
    """A file beside the target to write to, renamed to it at the end: a reader sees the old file or the new one, never
    a part.

    Raises:
        OSError: the folder cannot be made or the file cannot be written. On any error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Writes all of `data`, or raises as `atomic` does."""
    with atomic(path) as file:
        file.write(data)
