"""A vocabulary by its name or its file: bytes, characters or byte pairs."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..._errors import DataError, UsageError
from ..files.contents import read_bytes
from .bpe import BytePairs, read_byte_pairs, train_byte_pairs
from .pair_vocabulary import OwnPairs, PublishedPairs, Words
from .vocabulary import FORMAT, NAME, Bytes, Characters, Vocabulary
from .word_pieces import WordPieces

_FILE_BYTES = 256 * 2**20


def open_vocabulary(name: str, text: str, flag: str = "--tokenizer") -> Vocabulary:
    """The vocabulary that a flag names: bytes, chars, bpe-4096 (as many byte pairs learned of the text), or a path.

    A path leads to a vocabulary.json of another run, a tokenizer.json, or a folder with one of them or with vocab.json
    and merges.txt.

    Raises:
        DataError: the files are not there, or not what they should be.
        UsageError: the name is another, or has a size that cannot be.
        ValueError: the text is empty.
    """
    if not text:
        raise ValueError("text must not be empty, as there is nothing to make a vocabulary of")
    if name == "bytes":
        return Bytes()
    if name == "chars":
        return Characters.of(text)
    if name == "words":
        try:
            return Words.of(text)
        except ValueError as error:
            raise UsageError(f"{flag} {name}: {error}") from error
    if name.startswith("bpe-") and name[4:].isdecimal():
        try:
            return train_byte_pairs(text, int(name[4:]))
        except ValueError as error:
            raise UsageError(f"{flag} {name}: {error}") from error
    path = Path(name).expanduser()
    if not path.exists():
        raise UsageError(
            f"{flag} must be bytes, chars, bpe-SIZE such as bpe-4096, or a path: got {name!r}, where there is nothing"
        )
    kept = path / NAME if path.is_dir() else path
    return load_vocabulary(kept) if kept.name == NAME and kept.exists() else read_byte_pairs(path)


def load_vocabulary(path: Path, sha256: str | None = None) -> Vocabulary:
    """The vocabulary of a file that `Vocabulary.save` wrote; it must be the one with `sha256`, where that is given.

    Raises:
        DataError: the file cannot be read, is no vocabulary, or does not match the checkpoint that has the hash.
    """
    hint = "put back the file that was saved with the run"
    data = read_bytes(path, _FILE_BYTES)
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise DataError(
            path, f"the vocabulary of the checkpoint, SHA-256 {sha256[:16]}...", f"another, {found[:16]}...", hint
        )
    kinds: dict[str, Any] = {kind.kind: kind for kind in (Bytes, Characters, BytePairs, PublishedPairs, WordPieces)}
    kinds[Words.kind] = lambda words: Words(tuple(words))
    opened = {**kinds, OwnPairs.kind: lambda **about: OwnPairs.opened(kinds, about)}
    try:
        about = json.loads(data)
        if about.pop("format") != FORMAT:
            raise ValueError(f"not of the format {FORMAT}")
        return opened[about.pop("kind")](**about)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(path, "a vocabulary that a run saved", f"{type(error).__name__}: {error}", hint) from error
