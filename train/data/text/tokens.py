"""Token ids in memory or in a file of any length, and windows of them."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt

from ..._errors import DataError
from ..feed.draws import uniforms
from ..feed.order import Part
from ..files.rows import Rows

_CHUNK = 2**23


class Tokens:
    """Token ids in a row, and windows of them.

    Args:
        ids: in memory; or a file: `.npy` of uint8, uint16 or uint32, or any other name, without a header and
            little-endian, uint16 where the vocabulary fits it and otherwise uint32.
        vocab: ids are below it.
        context: a window is one longer, for the token that follows.
        where: the place that errors name for ids in memory.

    Raises:
        DataError: the file cannot be read, is of another type or an odd length; an id is not below `vocab`; or there is
            less than one window.
    """

    def __init__(
        self, ids: Path | Rows | UInt[np.ndarray, " n"], *, vocab: int, context: int, where: str | Path = "the text"
    ):
        self.where, self.vocab, self.context = (ids if isinstance(ids, Path) else where), vocab, context
        self.ids = self._open(ids) if isinstance(ids, Path) else ids
        if len(self.ids) < context + 1:
            hint = "take a longer text, or a shorter context"
            raise DataError(self.where, f"at least context + 1 = {context + 1:,} tokens", f"{len(self.ids):,}", hint)
        for start in range(0, len(self.ids), _CHUNK):
            part = self.ids[start : start + _CHUNK]
            if (top := int(part.max())) >= vocab:
                got = f"id {top} at token {start + int(part.argmax()):,}"
                raise DataError(
                    self.where,
                    f"ids below the vocabulary's {vocab:,}",
                    got,
                    "it was made with another vocabulary, or as another type",
                )

    def __len__(self) -> int:
        """Windows that follow each other without overlap."""
        return (self.tokens - 1) // self.context

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def cut(self, held_out: float) -> "tuple[Tokens, Tokens]":
        """The beginning, and the last `held_out` of them.

        Raises:
            DataError: one of the two has less than a window.
        """
        at = int(self.tokens * (1 - held_out))
        parts = (
            (self.ids[:at], self.ids[at:])
            if isinstance(self.ids, np.ndarray)
            else (self.ids.part(0, at), self.ids.part(at, None))
        )
        first, last = (Tokens(part, vocab=self.vocab, context=self.context, where=self.where) for part in parts)
        return first, last

    def windows(self, starts: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, "n length"]:
        """`context + 1` ids from each of some tokens on."""
        return np.stack([self.ids[start : start + self.context + 1] for start in starts.tolist()]).astype(np.int32)

    def drawn(self, seed: int, part: Part) -> Int64[np.ndarray, " n"]:
        """First tokens of the windows of some places of a batch, drawn from all that a whole window follows."""
        return (uniforms(seed, part.step, part.index, 1)[:, 0] * (self.tokens - self.context)).astype(np.int64)

    def _open(self, path: Path) -> Rows:
        if path.suffix == ".npy":
            rows = Rows.of_npy(path)
            if rows.ndim != 1 or rows.dtype.kind != "u" or rows.dtype.itemsize > 4:
                raise DataError(
                    path,
                    "one axis of uint8, uint16 or uint32",
                    f"{rows.dtype} {rows.shape}",
                    "convert it before numpy.save",
                )
            return rows
        dtype = np.dtype("<u2" if self.vocab <= 2**16 else "<u4")
        size = path.stat().st_size if path.is_file() else 0
        if size % dtype.itemsize:
            expected = f"a multiple of {dtype.itemsize} bytes for {dtype.name} ids"
            raise DataError(path, expected, f"{size:,} bytes", "it is truncated, or of another type; write it again")
        return Rows(path, (size // dtype.itemsize,), dtype)
