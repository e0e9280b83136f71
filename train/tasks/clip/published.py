"""Texts by the tokenizer of a published CLIP or SigLIP, which a run keeps beside its weights."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from eqxgen.pretrained.tokenizer import Tokenizer, open_tokenizer
from eqxgen.pretrained.tokenizer.published import FILES

from ..._errors import DataError, UserError

FOLDER = "tokenizer"
"""Of a run, with the files of the tokenizer."""
KINDS = {"clip": "eos_token_id", "siglip": "eos_token_id"}
_FILES = (*FILES, "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json")


class PublishedTexts(NamedTuple):
    """Texts as a published model encodes them.

    Attributes:
        folder: with its files.
        tokenizer: of them.
        size: number of ids of the model, those of special tokens included.
        end: id that texts are filled up with.
    """

    folder: Path
    tokenizer: Tokenizer
    size: int
    end: int

    @classmethod
    def open(cls, folder: Path) -> "PublishedTexts":
        """The tokenizer of a folder with the model's config.json.

        Raises:
            UserError: its files cannot be read.
        """
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            tokenizer = open_tokenizer(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"--text-tokenizer {folder}: {error}") from None
        text = values.get("text_config") or {}
        size = int(text.get("vocab_size", {"clip": 49408, "siglip": 32000}[values["model_type"]]))
        end = tokenizer.encode("a")[-1]
        return cls(folder, tokenizer, size, int(end))

    @property
    def sha256(self) -> str:
        """Hash of the files."""
        total = hashlib.sha256()
        for path in self._paths():
            total.update(path.read_bytes())
        return total.hexdigest()

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Ids of a text with the special tokens around it, but for the end."""
        return self.tokenizer.encode(text)[:-1]

    def save(self, folder: Path) -> None:
        """Copies the files into the folder of a run."""
        where = folder / FOLDER
        where.mkdir(exist_ok=True)
        for path in self._paths():
            shutil.copyfile(path, where / path.name)

    def _paths(self) -> list[Path]:
        return [path for name in sorted(_FILES) if (path := self.folder / name).is_file()]


def is_published(name: str) -> bool:
    """True for the folder of a published CLIP or SigLIP."""
    return _kind(Path(name).expanduser()) in KINDS


def kept(folder: Path, sha256: str | None) -> PublishedTexts:
    """The tokenizer of a run, which must be the one with the hash.

    Raises:
        DataError: it is another.
    """
    found = PublishedTexts.open(folder / FOLDER)
    if found.sha256 != sha256:
        hint = "put back the files that were saved with the run"
        raise DataError(folder / FOLDER, "the tokenizer of the checkpoint", "another", hint)
    return found


def _kind(folder: Path) -> Any:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values.get("model_type") if isinstance(values, dict) else None
