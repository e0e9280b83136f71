"""Vocabularies: text to ids and back, stored as a file that is known by its hash."""

import codecs
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Integer, UInt8, UInt32

from ..._files import write_atomically

FORMAT = "eqxgen-vocabulary 1"
NAME = "vocabulary.json"
_SHOWN = 8


class Vocabulary:
    """Interface of every kind: `encode`, `decode`, `stream`, and a file.

    Attributes:
        kind: of the vocabulary, as it is named in its file.
    """

    kind: ClassVar[str]

    @property
    def size(self) -> int:
        """Number of ids."""
        raise NotImplementedError

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text; none of an empty one."""
        raise NotImplementedError

    def decode(self, ids: Integer[np.ndarray, " n"]) -> str:
        """The text of ids; bytes that are no UTF-8, as at a torn end, become U+FFFD.

        Raises:
            ValueError: an id is not of the vocabulary.
        """
        return self.bytes_of(ids).decode("utf-8", "replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in whole characters alone; all of it together is what `decode` gives.

        Raises:
            ValueError: an id is not of the vocabulary.
        """
        decode = self.decoder()
        for id in ids:
            if text := decode(id):
                yield text
        if text := decode(None):
            yield text

    def decoder(self) -> Callable[[int | None], str]:
        """Converter of one id after another to text, as `stream`; a piece may be empty. None, for the end, gives the
        rest.
        """
        held = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda id: held.decode(b"", final=True) if id is None else held.decode(self.bytes_of(np.asarray([id])))

    def bytes_of(self, ids: Integer[np.ndarray, " n"]) -> bytes:
        """The UTF-8 of ids, which may end inside a character."""
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.size:
            raise ValueError(f"ids must be in [0, size={self.size}): got values from {ids.min()} to {ids.max()}")
        return self._bytes(ids)

    @property
    def start(self) -> str:
        """The text that samples begin with where none is given: a line end, if the vocabulary has one."""
        return "\n"

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids that end a text; none where the vocabulary has no such token."""
        return ()

    @property
    def sha256(self) -> str:
        """Hash of the file, by which a checkpoint knows its vocabulary."""
        return hashlib.sha256(self._file()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes the file that `load_vocabulary` reads, whole or not at all."""
        write_atomically(path, lambda part: part.write_bytes(self._file()))

    def _file(self) -> bytes:
        about = {"format": FORMAT, "kind": self.kind} | self._fields()
        return json.dumps(about, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    def _bytes(self, ids: np.ndarray) -> bytes:
        raise NotImplementedError

    def _fields(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class Bytes(Vocabulary):
    """The 256 bytes of UTF-8 as ids, for any text."""

    kind = "bytes"

    @property
    def size(self) -> int:
        return 256

    def encode(self, text: str) -> UInt8[np.ndarray, " n"]:
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def _bytes(self, ids: np.ndarray) -> bytes:
        return ids.astype(np.uint8).tobytes()


@dataclasses.dataclass(frozen=True)
class Characters(Vocabulary):
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
        """The characters of a text."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.characters)

    @property
    def start(self) -> str:
        return next(char for char in ("\n", " ", *self.characters) if char in self.characters)

    def encode(self, text: str) -> UInt32[np.ndarray, " n"]:
        """Ids of a text.

        Raises:
            ValueError: characters are not of the vocabulary; they are named.
        """
        known, points = _points(self.characters), _points(text)
        ids = np.minimum(np.searchsorted(known, points), len(known) - 1).astype(np.uint32)
        if (unknown := known[ids] != points).any():
            at = int(np.argmax(unknown))
            kinds = sorted(set(text) - set(self.characters))
            more = (
                f", and in all {len(kinds)} that it lacks: {' '.join(map(repr, kinds[:_SHOWN]))}"
                if len(kinds) > 1
                else ""
            )
            raise ValueError(
                f"text must have characters of the vocabulary's {self.size} alone: got {text[at]!r} at character "
                f"{at:,}{more}"
            )
        return ids

    def _bytes(self, ids: np.ndarray) -> bytes:
        return _points(self.characters)[ids].tobytes().decode("utf-32-le").encode("utf-8")

    def _fields(self) -> dict[str, Any]:
        return {"characters": self.characters}


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
