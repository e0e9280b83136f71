"""Text from files: checked to be UTF-8, and as ids of a vocabulary."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8, UInt32

from .errors import DataError
from .files import MAX_BYTES, read_bytes

SUFFIXES = (".txt", ".text", ".md")


def read_text(path: Path, limit: int = MAX_BYTES) -> dict[str, str]:
    """The texts of a file, or of all files `.txt`, `.text` and `.md` of a folder and those below it, by relative path and in its order.

    Raises:
        DataError: there is none, one is empty or not UTF-8, or together they have more than `limit` bytes.
    """
    if not path.is_dir():
        return {path.name: decode(path, read_bytes(path, limit))}
    texts: dict[str, str] = {}
    for folder, below, names in os.walk(path):
        below.sort()
        for file in (Path(folder) / name for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")):
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
        raise DataError(path, "UTF-8 text", got, "convert it, such as with iconv -t UTF-8, or take the file out") from None


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The bytes of UTF-8 as ids: any text, 256 of them."""

    kind = "bytes"
    size = 256

    def encode(self, text: str) -> UInt8[np.ndarray, " n"]:
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def decode(self, ids: Int32[np.ndarray, " n"]) -> str:
        """The text; bytes that are no UTF-8, as at a torn end, become U+FFFD."""
        return ids.astype(np.uint8).tobytes().decode("utf-8", "replace")


@dataclasses.dataclass(frozen=True)
class Characters:
    """The characters of a text, in the order of their code points.

    Raises:
        ValueError: there is no character, one comes twice, or they are not in order.
    """

    characters: str
    kind = "chars"

    def __post_init__(self):
        if not self.characters or sorted(set(self.characters)) != list(self.characters):
            raise ValueError(f"characters must be one or more, each once, by code point: got {self.characters[:40]!r}")

    @classmethod
    def of(cls, text: str) -> "Characters":
        """Those that a text has."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> UInt32[np.ndarray, " n"]:
        """Ids of a text.

        Raises:
            ValueError: a character is not of the vocabulary.
        """
        known, points = _points(self.characters), _points(text)
        ids = np.minimum(np.searchsorted(known, points), len(known) - 1).astype(np.uint32)
        if (unknown := known[ids] != points).any():
            at = int(np.argmax(unknown))
            raise ValueError(f"text must have characters of the vocabulary's {self.size} alone: got {text[at]!r} at character {at:,}")
        return ids

    def decode(self, ids: Int32[np.ndarray, " n"]) -> str:
        """The text of ids."""
        return _points(self.characters)[ids].tobytes().decode("utf-32-le")


Vocabulary = Bytes | Characters


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
