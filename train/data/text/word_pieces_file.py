"""A vocabulary of words or pieces of words by its name or its files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..._errors import DataError, UsageError
from ...config.tasks import PIECES
from ..files.contents import read_bytes
from .vocabulary import NAME
from .vocabulary_file import load_vocabulary
from .word_pieces import WordPieces, learn_pieces, learn_words

_FILE_BYTES = 128 * 2**20


def open_word_pieces(name: str, texts: Iterable[str], flag: str = "--data.tokenizer") -> WordPieces:
    """The vocabulary that a flag names: words-8000, wordpiece-8000, cased-words-8000, or a path; see
    `read_word_pieces`.

    Raises:
        DataError: the files are not there, or not what they should be.
        UsageError: there is nothing at the path.
    """
    if named := PIECES.fullmatch(name):
        learn = learn_words if named[2] == "words" else learn_pieces
        return learn(texts, int(named[3]), lower=named[1] is None)
    path = Path(name).expanduser()
    if not path.exists():
        raise UsageError(f"{flag} must be words-SIZE, wordpiece-SIZE or a path: got {name!r}, where there is nothing")
    return read_word_pieces(path)


def read_word_pieces(path: Path) -> WordPieces:
    """The vocabulary of a vocabulary.json, vocab.txt or tokenizer.json, or of a folder that has one of them.

    Of vocab.txt, the tokenizer_config.json beside it says whether texts are read in lower case, as they are by default.

    Raises:
        DataError: the file is missing or damaged, or of another kind of tokenizer.
    """
    hint = "take the folder of a run of train.bert, or of a published BERT with its vocab.txt"
    names = (NAME, "vocab.txt", "tokenizer.json")
    file = next((path / name for name in names if (path / name).is_file()), None) if path.is_dir() else path
    if file is None:
        raise DataError(path, f"{', '.join(names)}", "none of them", hint)
    try:
        if file.name == NAME:
            found = load_vocabulary(file)
        elif file.suffix == ".json":
            found = _of_json(json.loads(read_bytes(file, _FILE_BYTES)))
        else:
            pieces = read_bytes(file, _FILE_BYTES).decode("utf-8").removesuffix("\n").split("\n")
            found = WordPieces([piece.rstrip("\r") for piece in pieces], _lower_beside(file))
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(file, "a vocabulary of BERT's kind", f"{type(error).__name__}: {error}", hint) from error
    if not isinstance(found, WordPieces):
        raise DataError(file, "a vocabulary of words or pieces of words", f"one of {found.kind}", hint)
    return found


def _lower_beside(file: Path) -> bool:
    about = file.parent / "tokenizer_config.json"
    values = json.loads(read_bytes(about, _FILE_BYTES)) if about.exists() else {}
    lower = values.get("do_lower_case", True)
    if values.get("strip_accents") not in (None, lower) or not values.get("tokenize_chinese_chars", True):
        raise ValueError("tokenizer_config.json must leave strip_accents and tokenize_chinese_chars at their defaults")
    return bool(lower)


def _of_json(values: dict[str, Any]) -> WordPieces:
    model, normalizer = values["model"], values.get("normalizer") or {}
    if model.get("type") != "WordPiece" or normalizer.get("type") != "BertNormalizer":
        raise ValueError("must be a WordPiece with BERT's normalizer")
    plain = {"clean_text": (True,), "handle_chinese_chars": (True,), "strip_accents": (None, normalizer["lowercase"])}
    if wrong := [name for name, known in plain.items() if normalizer.get(name) not in known]:
        raise ValueError(f"{wrong[0]} must be BERT's default")
    ids = model["vocab"]
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError("the ids must be numbered from 0 without gaps")
    return WordPieces(sorted(ids, key=ids.__getitem__), bool(normalizer["lowercase"]))
