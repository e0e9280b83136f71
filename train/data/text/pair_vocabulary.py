"""Vocabularies of pairs of texts, with T5's ids: 0 is padding, 1 the end of a text, the last are sentinels of spans."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer, UInt32

from .vocabulary import Vocabulary

PAD, END = 0, 1
_FIRST = 2
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Words(Vocabulary):
    """Words that spaces separate, such as phonemes, in the order of their code points.

    Raises:
        ValueError: there is no word, one comes twice, has a space, or they are not in order.
    """

    words: tuple[str, ...]
    kind = "words"

    def __post_init__(self):
        if not self.words or sorted(set(self.words)) != list(self.words) or any(w.split() != [w] for w in self.words):
            raise ValueError(f"words must be one or more, each once, in order and without spaces: got {self.words[:8]}")

    @classmethod
    def of(cls, text: str) -> "Words":
        """The words of a text."""
        return cls(tuple(sorted(set(text.split()))))

    @property
    def size(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> UInt32[np.ndarray, " n"]:
        """Ids of a text.

        Raises:
            ValueError: words are not of the vocabulary; they are named.
        """
        found = text.split()
        if unknown := [word for word in found if word not in self._ids]:
            raise ValueError(
                f"text must have words of the vocabulary's {self.size} alone: got {', '.join(unknown[:_SHOWN])!r}"
            )
        return np.asarray([self._ids[word] for word in found], np.uint32)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def _bytes(self, ids: np.ndarray) -> bytes:
        return " ".join(self.words[id] for id in ids.tolist()).encode()

    def _fields(self) -> dict[str, Any]:
        return {"words": list(self.words)}


class PairVocabulary(Vocabulary):
    """Interface of the vocabularies of pairs."""

    sentinels: int
    """Number of sentinels of spans."""

    def source(self, text: str) -> Int32[np.ndarray, " n"]:
        """Ids of a source and its end; `ValueError` where the vocabulary lacks a part of it."""
        raise NotImplementedError

    def target(self, text: str) -> Int32[np.ndarray, " n"]:
        """Ids of a target and its end; `ValueError` where the vocabulary lacks a part of it."""
        return self.source(text)

    def sentinel(self, number: int) -> int:
        """Id of the token of a span: <extra_id_0> is the last of the vocabulary."""
        raise NotImplementedError

    def encode(self, text: str) -> Int32[np.ndarray, " n"]:
        return self.source(text)[:-1]


@dataclasses.dataclass(frozen=True)
class OwnPairs(PairVocabulary):
    """Two vocabularies of a run, or one for both texts, in one table.

    Args:
        sources: of the sources.
        targets: of the targets, whose ids come after; None: the same as of the sources.
        sentinels: number of sentinels of spans.
    """

    sources: Vocabulary
    targets: Vocabulary | None = None
    sentinels: int = 0
    kind = "pairs"

    @property
    def size(self) -> int:
        return self._shift + (self.targets or self.sources).size + self.sentinels

    def source(self, text: str) -> Int32[np.ndarray, " n"]:
        return _ended(self.sources.encode(text).astype(np.int32) + _FIRST)

    def target(self, text: str) -> Int32[np.ndarray, " n"]:
        return _ended((self.targets or self.sources).encode(text).astype(np.int32) + self._shift)

    def sentinel(self, number: int) -> int:
        return self.size - 1 - number

    @property
    def _shift(self) -> int:
        """Id of the first token of a target."""
        return _FIRST + (self.sources.size if self.targets else 0)

    def _bytes(self, ids: np.ndarray) -> bytes:
        """Runs of tokens of one kind, each decoded as such: a source's, a target's, or spans'."""
        first = self.size - self.sentinels
        kinds = np.select([ids < _FIRST, ids >= first, ids >= self._shift], [0, 1, 2], 3)
        found = b""
        for part in np.split(ids, np.flatnonzero(np.diff(kinds)) + 1) if len(ids) else []:
            if (id := int(part[0])) >= first:
                found += b"".join(f"<extra_id_{self.size - 1 - other}>".encode() for other in part.tolist())
            elif id >= self._shift:
                found += (self.targets or self.sources).bytes_of(part - self._shift)
            elif id >= _FIRST:
                found += self.sources.bytes_of(part - _FIRST)
        return found

    def _fields(self) -> dict[str, Any]:
        described = lambda one: {"kind": one.kind} | one._fields()
        more = {"targets": described(self.targets)} if self.targets else {}
        return {"sources": described(self.sources), "sentinels": self.sentinels} | more

    @classmethod
    def opened(cls, kinds: dict[str, Any], about: dict[str, Any]) -> "OwnPairs":
        """The vocabulary of what its file says."""
        made = lambda one: kinds[one["kind"]](**{name: value for name, value in one.items() if name != "kind"})
        targets = about.get("targets")
        return cls(made(about["sources"]), None if targets is None else made(targets), int(about["sentinels"]))


@dataclasses.dataclass(frozen=True)
class PublishedPairs(PairVocabulary):
    """The tokenizer of a published T5, as the `tokenizers` library describes it.

    Raises:
        ValueError: its padding is not 0, or its end not 1.
    """

    tokenizer: dict[str, Any]
    kind = "t5"

    def __post_init__(self):
        ids = [self._library.token_to_id(token) for token in ("<pad>", "</s>")]
        if ids != [PAD, END]:
            raise ValueError(f"tokenizer must be a T5's, with <pad> 0 and </s> 1: got {ids[0]} and {ids[1]}")

    @property
    def size(self) -> int:
        return max(self._ids.values()) + 1

    @functools.cached_property
    def sentinels(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        count = 0
        while f"<extra_id_{count}>" in self._ids:
            count += 1
        return count

    def source(self, text: str) -> Int32[np.ndarray, " n"]:
        return _ended(np.asarray(self._library.encode(text, add_special_tokens=False).ids, np.int32))

    def sentinel(self, number: int) -> int:
        return self._ids[f"<extra_id_{number}>"]

    def decode(self, ids: Integer[np.ndarray, " n"]) -> str:
        return self._library.decode([id for id in ids.tolist() if id not in (PAD, END)], skip_special_tokens=False)

    def decoder(self) -> Callable[[int | None], str]:
        """Pieces as they come: what each id adds to the text of those before it."""
        ids: list[int] = []

        def one(id: int | None) -> str:
            before = self.decode(np.asarray(ids, np.int64))
            ids.extend([] if id is None else [id])
            return self.decode(np.asarray(ids, np.int64))[len(before) :]

        return one

    def _bytes(self, ids: np.ndarray) -> bytes:
        return self.decode(ids).encode()

    def _fields(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}

    @functools.cached_property
    def _library(self) -> Any:
        from .bpe import tokenizers_library

        return tokenizers_library().Tokenizer.from_str(json.dumps(self.tokenizer))

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return self._library.get_vocab(with_added_tokens=True)


def _ended(ids: np.ndarray) -> np.ndarray:
    return np.append(ids, np.int32(END))
