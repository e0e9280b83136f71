"""Text from files, checked to be UTF-8."""

import os
from pathlib import Path

from ..errors import DataError
from ..files.whole import MAX_BYTES, read_bytes

SUFFIXES = (".txt", ".text", ".md")


def read_text(path: Path, limit: int = MAX_BYTES) -> dict[str, str]:
    """The texts of a file, or of all files `.txt`, `.text` and `.md` of a folder and those below it, by relative path
    and in its order.

    Raises:
        DataError: there is none, one is empty or not UTF-8, or together they have more than `limit` bytes.
    """
    if not path.is_dir():
        return {path.name: decode(path, read_bytes(path, limit))}
    texts: dict[str, str] = {}
    for folder, below, names in os.walk(path):
        below.sort()
        for file in (
            Path(folder) / name for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ):
            data = read_bytes(file, limit)
            limit -= len(data)
            texts[file.relative_to(path).as_posix()] = decode(file, data)
    if not texts:
        raise DataError(path, f"text files ({' '.join(SUFFIXES)})", "none", "put the text there, or name its file")
    return dict(sorted(texts.items()))


def decode(path: Path, data: bytes) -> str:
    """UTF-8 as text, without a byte-order mark.

    Raises:
        DataError: the bytes are not UTF-8; the first wrong one is named.
    """
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        got = f"byte {data[error.start]:#04x} at offset {error.start:,} ({error.reason})"
        raise DataError(
            path, "UTF-8 text", got, "convert it, such as with iconv -t UTF-8, or take the file out"
        ) from None
