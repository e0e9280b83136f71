"""Contents of a file, read once and checked: size limit, SHA-256, or a sampled hash of a file too large for one."""

import hashlib
import os
from pathlib import Path

from ..._errors import DataError

MAX_BYTES = 8 * 2**30
_BLOCKS, _BLOCK = 16, 2**16


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The whole file, read once: the checked bytes are the used ones, even if the file changes meanwhile.

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
        hint = f"it is truncated or altered ({len(data):,} bytes); delete it and fetch it again"
        raise DataError(path, f"SHA-256 {sha256}", found, hint)
    return data


def sampled_hash(file: int) -> str:
    """SHA-256 of the size of an open file and of 16 blocks of 64 KiB spread evenly over it, so of all of a file up to
    1 MiB.

    Args:
        file: a descriptor.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.fstat(file).st_size
    digest = hashlib.sha256(b"%d" % size)
    for number in range(_BLOCKS):
        start = number * _BLOCK if size <= _BLOCKS * _BLOCK else number * (size - _BLOCK) // (_BLOCKS - 1)
        digest.update(os.pread(file, _BLOCK, start))
    return digest.hexdigest()
