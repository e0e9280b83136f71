"""Byte pairs (Sennrich et al. 2016, arXiv:1508.07909) over bytes, as GPT-2's: any text, in pieces that may end inside a
character.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt32

from ..._errors import DataError, UserError
from ..files.contents import read_bytes
from .vocabulary import Vocabulary

END = "<|endoftext|>"
ENDS = (END, "<|end_of_text|>", "<|eot_id|>", "</s>")
"""Tokens that end a text: GPT-2's, LLaMA 3's with that of a turn, and SentencePiece's."""
_FILE_BYTES = 128 * 2**20


@dataclasses.dataclass(frozen=True)
class BytePairs(Vocabulary):
    """A byte-level BPE, described as the `tokenizers` library does in a tokenizer.json; that library encodes, decoding
    needs none.

    Special tokens such as `<|endoftext|>` are found in texts, as that library does.

    Args:
        tokenizer: what the tokenizer.json says.

    Raises:
        ValueError: it is not a byte-level BPE, or lacks a byte.
    """

    tokenizer: dict[str, Any]
    kind = "bpe"

    def __post_init__(self):
        model = self.tokenizer.get("model")
        if (
            not isinstance(model, dict)
            or model.get("type") != "BPE"
            or '"ByteLevel"' not in json.dumps(self.tokenizer.get("decoder"))
        ):
            raise ValueError("tokenizer must be a byte-level BPE, as GPT-2's: got another model or decoder")
        if missing := set(_ALPHABET) - set(model["vocab"]):
            raise ValueError(f"tokenizer must have all 256 bytes: got {256 - len(missing)}")
        if len(self._pieces) != max(self._ids.values()) + 1:
            raise ValueError(
                f"tokenizer must number its tokens from 0: got {len(self._pieces)} up to id {max(self._ids.values())}"
            )

    @property
    def size(self) -> int:
        return len(self._pieces)

    @property
    def ends(self) -> tuple[int, ...]:
        added = {token["content"]: token["id"] for token in self.tokenizer.get("added_tokens") or ()}
        return tuple(added[token] for token in ENDS if token in added)

    def encode(self, text: str) -> UInt32[np.ndarray, " n"]:
        return np.asarray(self._encoder.encode(text, add_special_tokens=False).ids, np.uint32)

    def _bytes(self, ids: np.ndarray) -> bytes:
        return b"".join(map(self._pieces.__getitem__, ids.tolist()))

    def _fields(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}

    @functools.cached_property
    def _encoder(self) -> Any:
        return tokenizers_library().Tokenizer.from_str(json.dumps(self.tokenizer))

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        added = {token["content"]: token["id"] for token in self.tokenizer.get("added_tokens") or ()}
        return self.tokenizer["model"]["vocab"] | added

    @functools.cached_property
    def _pieces(self) -> dict[int, bytes]:
        # The characters of an added token, such as <|endoftext|>, are its text and not bytes.
        added = {token["content"] for token in self.tokenizer.get("added_tokens") or ()}
        return {
            id: piece.encode() if piece in added else bytes(map(_ALPHABET.__getitem__, piece))
            for piece, id in self._ids.items()
        }


def read_byte_pairs(path: Path) -> BytePairs:
    """The BPE of a tokenizer.json, or of a folder that has one, or GPT-2's vocab.json and merges.txt.

    Raises:
        DataError: the files are not there, damaged, or of another kind of tokenizer.
    """
    hint = "take the files of a byte-level BPE, as GPT-2's"
    whole = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not whole.exists() and not (path / "vocab.json").exists():
        raise DataError(path, "tokenizer.json, or vocab.json and merges.txt", "neither", hint)
    try:
        if whole.exists():
            return BytePairs(json.loads(read_bytes(whole, _FILE_BYTES)))
        vocab = json.loads(read_bytes(path / "vocab.json", _FILE_BYTES))
        lines = read_bytes(path / "merges.txt", _FILE_BYTES).decode("utf-8").splitlines()
        pairs = [
            (left, right)
            for left, right in (line.split(" ") for line in lines if line and not line.startswith("#version"))
        ]
        return _byte_pairs(vocab=vocab, merges=pairs, special=[END] if END in vocab else [])
    except DataError:
        raise
    # The library raises a bare Exception for files that do not belong together; its own checks come first, in
    # `_byte_pairs`.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(path, "a byte-level BPE", f"{type(error).__name__}: {error}", hint) from error


def train_byte_pairs(text: str, size: int, special: tuple[str, ...] = (END,)) -> BytePairs:
    """A BPE of at most `size` tokens learned of a text: the special ones, all bytes, and the pairs that come most
    often.

    Raises:
        ValueError: the text is empty, or `size` has no room for the bytes.
    """
    if not text:
        raise ValueError("text must not be empty, as there are no byte pairs in it")
    if size < 256 + len(special):
        raise ValueError(
            f"size must be at least {256 + len(special)}, for 256 bytes and {len(special)} special tokens: got {size}"
        )
    library = tokenizers_library()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    tokenizer = _plain(library, library.models.BPE())
    tokenizer.train_from_iterator([text], trainer)
    return BytePairs(json.loads(tokenizer.to_str()))


def _byte_pairs(vocab: dict[str, int], merges: list[tuple[str, str]], special: list[str]) -> BytePairs:
    if lost := next((pair for pair in merges if not {*pair, "".join(pair)} <= vocab.keys()), None):
        raise ValueError(f"merges.txt joins {lost[0]!r} and {lost[1]!r}, of which vocab.json lacks a part or the whole")
    library = tokenizers_library()
    tokenizer = _plain(library, library.models.BPE(vocab, merges))
    tokenizer.add_special_tokens(special)
    return BytePairs(json.loads(tokenizer.to_str()))


def _plain(library: Any, model: Any) -> Any:
    """As GPT-2's: no normalisation, no space put before the text."""
    tokenizer = library.Tokenizer(model)
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def tokenizers_library() -> Any:
    """The package `tokenizers`; raises `UserError` where it is not installed."""
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        hint = "pip install 'eqxgen[train]', or take the tokenizer bytes or chars"
        what = "byte pairs and pieces of words need the package tokenizers"
        raise UserError(f"{what}, which is not installed: {hint}") from error
    return tokenizers


def _alphabet() -> dict[str, int]:
    """The characters for bytes in GPT-2's files: printing ones as they are, the others from 256 on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + number): byte for number, byte in enumerate(others)}


_ALPHABET = _alphabet()
