"""A prepared set while it is written: files one by one, and its index last."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..._errors import DataError
from ..._files import write_atomically
from .broken import Say
from .prepared_index import DRAFT, INDEX


class Draft:
    """An unfinished prepared set: the index so far, rewritten after each file.

    Args:
        out: the folder, new or empty, or with the draft of the same source.
        about: entries of the index that are known from the start.
        source: text that differs where the content would.
        say: takes a line for each file that is written.

    Raises:
        DataError: the folder holds something else.
    """

    def __init__(self, out: Path, about: dict[str, Any], source: str, say: Say):
        self._out, self._about, self._say = out, about | {"source": source}, say
        self._files: dict[str, dict[str, Any]] = {}
        if out.exists() and not out.is_dir():
            raise DataError(out, "a new or an empty folder to write to", "a file", "name another")
        if (out / INDEX).exists() or (out.exists() and not (out / DRAFT).exists() and any(out.iterdir())):
            got = "a finished set" if (out / INDEX).exists() else "one with other files"
            raise DataError(out, "a new or an empty folder to write to", got, "name another, or remove it")
        if (out / DRAFT).exists():
            self._files = self._begun()

    def _begun(self) -> dict[str, dict[str, Any]]:
        """The files that an interrupted preparation of the same source has finished."""
        try:
            draft = json.loads((self._out / DRAFT).read_bytes())
            files = dict(draft["files"])
            same = {name: draft[name] for name in self._about} == self._about
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                self._out / DRAFT, "the index of an interrupted preparation", str(error), "remove the folder"
            ) from error
        if not same:
            hint = "give the same command again, or remove the folder"
            raise DataError(self._out, "an interrupted preparation of this source", "one of another", hint)
        return files

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Entries of the index by name: `bytes`, `sha256`, and the notes of each file."""
        return self._files

    def has(self, name: str) -> bool:
        """True where a file is there with the sum that was written down."""
        path, file = self._out / name, self._files.get(name)
        return file is not None and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]

    def write(self, name: str, make: Callable[[], np.ndarray]) -> None:
        """Writes one array, unless it is there."""
        if not self.has(name):
            self.add(name, make())

    def add(self, name: str, array: np.ndarray, notes: dict[str, Any] | None = None) -> None:
        """Writes one array, and its notes into the index."""
        path, buffer = self._out / name, io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        data = buffer.getbuffer()
        write_atomically(path, lambda part: part.write_bytes(data))
        file = {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self._files[name] = file | (notes or {})
        self._save(DRAFT, {})
        self._say(f"{path}  {len(data):,} bytes")

    def finish(self, parts: dict[str, Any]) -> Path:
        """The index comes last: a folder that has one is whole."""
        path = self._save(INDEX, parts)
        (self._out / DRAFT).unlink(missing_ok=True)
        return path

    def _save(self, name: str, parts: dict[str, Any]) -> Path:
        text = json.dumps(self._about | parts | {"files": self._files}, indent=1)
        write_atomically(self._out / name, lambda part: part.write_text(text, encoding="utf-8"))
        return self._out / name
