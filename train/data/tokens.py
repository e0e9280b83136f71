"""Ids of a text in a file, however long, and windows of them."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Integer

from .draws import uniforms
from .errors import DataError
from .order import Part
from .rows import Rows

_CHUNK = 2**23


class Tokens:
    """A file of token ids: `.npy` of uint8, uint16 or uint32; or any other name, without a header and little-endian, uint16 where the
    vocabulary fits it and otherwise uint32.

    Args:
        path: of the file.
        vocab: ids are below it.
        context: a window is one longer, for the token that follows.

    Raises:
        DataError: the file cannot be read, is of another type or an odd length, holds an id that is not below `vocab`, or has less than one
            window.
    """

    def __init__(self, path: Path, *, vocab: int, context: int):
        self.path, self.vocab, self.context = path, vocab, context
        self._rows = self._open()
        if len(self._rows) < context + 1:
            cure = "take a longer text, or a shorter context"
            raise DataError(path, f"at least context + 1 = {context + 1:,} tokens", f"{len(self._rows):,}", cure)
        for start in range(0, len(self._rows), _CHUNK):
            ids = self._rows.run(start, min(_CHUNK, len(self._rows) - start))
            if (top := int(ids.max())) >= vocab:
                got = f"id {top} at token {start + int(ids.argmax()):,}"
                raise DataError(
                    path, f"ids below the vocabulary's {vocab:,}", got, "it was made with another vocabulary, or as another type"
                )

    def __len__(self) -> int:
        """Windows that follow each other without overlap."""
        return (self.tokens - 1) // self.context

    @property
    def tokens(self) -> int:
        return len(self._rows)

    def windows(self, starts: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, "n length"]:
        """`context + 1` ids from each of some tokens on."""
        return np.stack([self._rows.run(int(start), self.context + 1) for start in starts]).astype(np.int32)

    def drawn(self, seed: int, part: Part) -> Int64[np.ndarray, " n"]:
        """Where the windows of some places of a batch begin, drawn from all tokens that a whole window follows."""
        return (uniforms(seed, part.step, part.index, 1)[:, 0] * (self.tokens - self.context)).astype(np.int64)

    def _open(self) -> Rows:
        if self.path.suffix == ".npy":
            rows = Rows.of_npy(self.path)
            if rows.ndim != 1 or rows.dtype.kind != "u" or rows.dtype.itemsize > 4:
                raise DataError(
                    self.path, "one axis of uint8, uint16 or uint32", f"{rows.dtype} {rows.shape}", "convert it before numpy.save"
                )
            return rows
        dtype = np.dtype("<u2" if self.vocab <= 2**16 else "<u4")
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size % dtype.itemsize:
            expected = f"a multiple of {dtype.itemsize} bytes for {dtype.name} ids"
            raise DataError(self.path, expected, f"{size:,} bytes", "it is truncated, or of another type; write it again")
        return Rows(self.path, (size // dtype.itemsize,), dtype)
