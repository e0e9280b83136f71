"""Vocabularies: from text to token ids and back. Every token stands for some bytes, so any stream of ids can be shown as it comes."""

import abc
import codecs
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Integer, UInt

from .config import TOKENIZERS, TextConfig
from .errors import DataError
from .files import MAX_BYTES, read_bytes

_JSON_BYTES = 256 * 2**20
_FILES = ("vocab.json", "merges.txt")
_INSTALL = 'pip install "eqxgen[text]"'


class Vocabulary(abc.ABC):
    """Tokens, each a string of bytes."""

    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of tokens; ids are below it."""

    @abc.abstractmethod
    def encode(self, text: str) -> UInt[np.ndarray, " n"]:
        """Ids of a text. Raises `ValueError` where it cannot be said in these tokens."""

    @abc.abstractmethod
    def token(self, id: int) -> bytes:
        """What a token stands for."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All there is to know, for `from_json`."""

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Vocabulary":
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is not that.
        """
        kinds: dict[str, Callable[[], Vocabulary]] = {
            "bytes": Bytes,
            "chars": lambda: Characters(values["characters"]),
            "pairs": lambda: Pairs(values["tokenizer"]),
        }
        if values["kind"] not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}: got {values['kind']!r}")
        return kinds[values["kind"]]()

    def decode(self, ids: Integer[np.ndarray, " n"]) -> str:
        """The text of ids; bytes that are no UTF-8, as at a torn end, become U+FFFD."""
        return b"".join(map(self.token, ids.tolist())).decode("utf-8", "replace")

    def decoder(self) -> Callable[[int], str]:
        """What turns one id after another into text: bytes are held back until they make a whole character, so a piece may be empty."""
        held = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda id: held.decode(self.token(id))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `to_json`."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


class Bytes(Vocabulary):
    """The bytes of UTF-8: any text, 256 tokens."""

    kind = "bytes"
    size = 256

    def encode(self, text: str) -> UInt[np.ndarray, " n"]:
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def token(self, id: int) -> bytes:
        return bytes([id])

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}


class Characters(Vocabulary):
    """The characters of a text, in the order of their code points.

    Raises:
        ValueError: there is no character, one comes twice, or they are not in order.
    """

    kind = "chars"

    def __init__(self, characters: str):
        if not characters or sorted(set(characters)) != list(characters):
            raise ValueError(f"characters must be one or more, each once, by code point: got {characters[:40]!r}")
        self.characters = characters

    @classmethod
    def of(cls, text: str) -> "Characters":
        """Those that a text has."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> UInt[np.ndarray, " n"]:
        known, points = _points(self.characters), _points(text)
        ids = np.minimum(np.searchsorted(known, points), len(known) - 1).astype(np.uint32)
        if (unknown := known[ids] != points).any():
            at = int(np.argmax(unknown))
            raise ValueError(f"text must have characters of the vocabulary's {self.size} alone: got {text[at]!r} at character {at:,}")
        return ids

    def token(self, id: int) -> bytes:
        return self.characters[id].encode("utf-8")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters}


class Pairs(Vocabulary):
    """Byte pairs (Sennrich et al. 2016) over bytes, as GPT-2 has them (Radford et al. 2019, section 2.2).

    Args:
        tokenizer: what Hugging Face's `tokenizers` writes as tokenizer.json, as text.

    Raises:
        ValueError: it is not that, or its tokens are not made of bytes.
    """

    kind = "pairs"

    def __init__(self, tokenizer: str):
        try:
            self._tokenizer = _tokenizers().Tokenizer.from_str(tokenizer)
        except Exception as error:
            if type(error) is Exception:  # the library has no type of its own
                raise ValueError(f"tokenizer must be a tokenizer.json: {error}") from error
            raise
        self.json = json.dumps(json.loads(tokenizer), sort_keys=True)
        decoder = json.loads(self.json).get("decoder") or {}
        if decoder.get("type") != "ByteLevel":
            raise ValueError(f"tokenizer must be of bytes, with a ByteLevel decoder, as GPT-2's: got {decoder.get('type')}")
        added = {entry["id"] for entry in json.loads(self.json).get("added_tokens", [])}
        bytes_of = {character: byte for byte, character in _byte_characters().items()}
        self._tokens: list[bytes] = []
        for id in range(self._tokenizer.get_vocab_size(with_added_tokens=True)):
            token = self._tokenizer.id_to_token(id)
            if token is None:
                raise ValueError(f"tokenizer must have a token for every id below its size: got none for {id}")
            self._tokens.append(token.encode() if id in added else bytes(bytes_of[character] for character in token))

    @classmethod
    def learnt(cls, text: str, size: int) -> "Pairs":
        """The most frequent pairs of a text, up to a number of tokens, the 256 bytes among them.

        Raises:
            ValueError: `size` is below 256.
        """
        if size < 256:
            raise ValueError(f"data.vocab must be at least 256, the bytes: got {size}")
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
        trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(tokenizer.to_str())

    @property
    def size(self) -> int:
        return len(self._tokens)

    def encode(self, text: str) -> UInt[np.ndarray, " n"]:
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)

    def token(self, id: int) -> bytes:
        return self._tokens[id]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokenizer": self.json}


def vocabulary_of(config: TextConfig, text: str, train: str) -> Vocabulary:
    """The vocabulary that a config names.

    Args:
        text: all of it, for its characters.
        train: the part that tokens are learnt from.

    Raises:
        DataError: a file of it cannot be read, or is not a vocabulary of bytes.
        ValueError: as `Pairs.learnt`.
    """
    match config.tokenizer:
        case "chars":
            return Characters.of(text)
        case "bytes":
            return Bytes()
        case "bpe":
            return Pairs.learnt(train, config.vocab or 1024)
        case path:
            return open_vocabulary(Path(path).expanduser())


def open_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json, or of a folder that has one, or GPT-2's vocab.json and merges.txt.

    Raises:
        DataError: there is no such file, or it is not a vocabulary of bytes.
    """
    if path.is_dir() and not (path / "tokenizer.json").exists():
        return _gpt2(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    return _checked(path, lambda: Pairs(read_bytes(path, _JSON_BYTES).decode("utf-8")))


def _gpt2(folder: Path) -> Vocabulary:
    vocab, merges = (read_bytes(folder / name, MAX_BYTES) for name in _FILES)

    def make() -> Pairs:
        library = _tokenizers()
        lines = [line.split(" ") for line in merges.decode("utf-8").splitlines() if line and not line.startswith("#version")]
        table = json.loads(vocab)
        tokenizer = library.Tokenizer(library.models.BPE(vocab=table, merges=[(left, right) for left, right in lines]))
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        if "<|endoftext|>" in table:
            tokenizer.add_special_tokens(["<|endoftext|>"])
        return Pairs(tokenizer.to_str())

    return _checked(folder, make)


def _checked(path: Path, make: Callable[[], Vocabulary]) -> Vocabulary:
    try:
        return make()
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(path, f"a tokenizer.json, or {' and '.join(_FILES)}", f"{error}", "fetch it again, or name another") from error


@functools.cache
def _byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in GPT-2's files: itself, or one from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + number) for number, byte in enumerate(rest)}


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise DataError("--data.tokenizer", "the library tokenizers", f"no module {error.name}", _INSTALL) from error
    return tokenizers


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


__all__ = ["TOKENIZERS", "Bytes", "Characters", "Pairs", "Vocabulary", "open_vocabulary", "vocabulary_of"]
