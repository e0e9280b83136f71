"""Words and pieces of words (Wu et al. 2016, arXiv:1609.08144), as BERT's: texts of one language, with a token for what
is unknown.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt32

from .bpe import tokenizers_library
from .vocabulary import Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST = 100
"""Characters of a word, above which it is unknown."""
_PRIVATE = 0xF0000
"""First character of a plane of private use."""


class Special(NamedTuple):
    """Ids of padding, an unknown word, the beginning, the end of a text, and a masked place."""

    pad: int
    unknown: int
    first: int
    end: int
    mask: int


@dataclasses.dataclass(frozen=True)
class WordPieces(Vocabulary):
    """Pieces of words; one that goes on within a word begins with ##. Without any of those it is a list of words.

    A text is cleaned and cut at spaces, punctuation and CJK characters as BERT's, and each word is the longest pieces
    from its start, or unknown. The `tokenizers` library encodes.

    Args:
        pieces: by id; the five of `SPECIAL` are among them.
        lower: texts are read in lower case and without accents.

    Raises:
        ValueError: a special token is missing, or a piece comes twice.
    """

    pieces: Sequence[str]
    lower: bool = True
    kind = "wordpiece"

    def __post_init__(self):
        if missing := [token for token in SPECIAL if token not in self._ids]:
            raise ValueError(f"pieces must have the tokens {' '.join(SPECIAL)}: got none of {missing[0]}")
        if len(self._ids) != len(self.pieces):
            raise ValueError(f"pieces must each come once: got {len(self.pieces)}, of which {len(self._ids)} differ")

    @property
    def size(self) -> int:
        return len(self.pieces)

    @functools.cached_property
    def special(self) -> Special:
        """Ids of the special tokens."""
        return Special(*(self._ids[token] for token in SPECIAL))

    @functools.cached_property
    def continues(self) -> Bool[np.ndarray, " size"]:
        """True for pieces that go on within a word."""
        return np.asarray([piece.startswith("##") for piece in self.pieces])

    def encode(self, text: str) -> UInt32[np.ndarray, " n"]:
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[UInt32[np.ndarray, "_"]]:
        """Ids of each text, without the beginning and the end; a special token that a text has written is itself."""
        encoded = self._encoder.encode_batch(list(texts), add_special_tokens=False)
        return [np.asarray(one.ids, np.uint32) for one in encoded]

    def _bytes(self, ids: np.ndarray) -> bytes:
        numbers: list[int] = ids.tolist()
        parts = (self.pieces[number] for number in numbers)
        return "".join(part[2:] if part.startswith("##") else f" {part}" for part in parts).encode()

    def _fields(self) -> dict[str, Any]:
        return {"pieces": list(self.pieces), "lower": self.lower}

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: id for id, piece in enumerate(self.pieces)}

    @functools.cached_property
    def _encoder(self) -> Any:
        library = tokenizers_library()
        tokenizer = _plain(library, library.models.WordPiece(self._ids, unk_token="[UNK]"), self.lower)
        tokenizer.add_special_tokens(list(SPECIAL))
        return tokenizer


def learn_words(texts: Iterable[str], size: int, *, lower: bool = True) -> WordPieces:
    """The special tokens and the words that come most often, of those that come twice."""
    counts = _words(texts, lower)
    kept = [word for word in _by_count(counts) if counts[word] > 1 and len(word) <= _LONGEST]
    return WordPieces((*SPECIAL, *kept[: size - len(SPECIAL)]), lower)


def learn_pieces(texts: Iterable[str], size: int, *, lower: bool = True) -> WordPieces:
    """The special tokens, the characters, and the pieces of words that joins of the pairs that come most often make.

    Byte pairs are learnt of words whose characters but the first are written by stand-ins of private use. The trainer
    of pieces of the `tokenizers` library numbers ties in another order at each call.
    """
    library, words = tokenizers_library(), {w: n for w, n in _words(texts, lower).items() if len(w) <= _LONGEST}
    inner = {char: chr(_PRIVATE + number) for number, char in enumerate(sorted({c for w in words for c in w[1:]}))}
    outer = {stand_in: char for char, stand_in in inner.items()}
    pairs = library.Tokenizer(library.models.BPE())
    pairs.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    written = {word: word[0] + "".join(map(inner.__getitem__, word[1:])) for word in words}
    pairs.train_from_iterator(
        (" ".join([written[word]] * count) for word, count in words.items()),
        library.trainers.BpeTrainer(vocab_size=max(1, size - len(SPECIAL)), min_frequency=2, show_progress=False),
    )
    ids = pairs.get_vocab()
    plain = lambda token: "".join(outer.get(char) or char for char in token)
    pieces = [f"##{plain(token)}" if token[0] in outer else plain(token) for token in sorted(ids, key=ids.__getitem__)]
    return WordPieces((*SPECIAL, *pieces)[:size], lower)


def _words(texts: Iterable[str], lower: bool) -> "collections.Counter[str]":
    """Number of each word."""
    tokenizer = _plain(library := tokenizers_library(), library.models.BPE(), lower)
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        counts.update(word for word, _ in words)
    return counts


def _by_count(counts: "collections.Counter[str]") -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))


def _plain(library: Any, model: Any, lower: bool) -> Any:
    """As BERT's: cleaned, CJK characters apart, cut at punctuation."""
    tokenizer = library.Tokenizer(model)
    tokenizer.normalizer = library.normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lower
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    return tokenizer
