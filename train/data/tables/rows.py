"""Texts and pairs of texts as rows of tokens of one length, and words of them that are masked."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from ..text.word_pieces import WordPieces
from .parts import Text


class Rows(NamedTuple):
    """Tokens of texts: the beginning, a text and its end, and of a pair the second one and its end; then padding.

    Attributes:
        ids: (n, context).
        types: 1 for the second text and its end, otherwise 0.
        length: tokens before the padding.
        cut: number of rows whose texts were cut at their ends.
    """

    ids: Int32[np.ndarray, "n context"]
    types: Int32[np.ndarray, "n context"]
    length: Int32[np.ndarray, " n"]
    cut: int = 0

    def of(self, rows: Int64[np.ndarray, " _"]) -> dict[str, np.ndarray]:
        """Arrays of a batch of some rows."""
        return {"ids": self.ids[rows], "types": self.types[rows], "length": self.length[rows]}


def rows_of(vocabulary: WordPieces, texts: Sequence[Text], context: int) -> Rows:
    """A row for each text; of a pair that is too long, the longer one is cut first."""
    columns = [vocabulary.encode_all(column) for column in zip(*texts)]
    special, cut = vocabulary.special, 0
    ids = np.full((len(texts), context), special.pad, np.int32)
    types, length = np.zeros_like(ids), np.zeros(len(texts), np.int32)
    for number, parts in enumerate(zip(*columns)):
        kept = _fitting([len(part) for part in parts], context - 1 - len(parts))
        cut += kept != [len(part) for part in parts]
        ids[number, 0], at = special.first, 1
        for kind, (part, size) in enumerate(zip(parts, kept)):
            ids[number, at : at + size + 1] = [*part[:size], special.end]
            types[number, at : at + size + 1] = kind
            at += size + 1
        length[number] = at
    return Rows(ids, types, length, cut)


def packed_rows(vocabulary: WordPieces, texts: Sequence[Text], context: int) -> Rows:
    """Rows of full length of texts that follow each other, an end after each; what is left at last is a shorter one."""
    special, inner = vocabulary.special, context - 2
    parts = [np.append(ids, special.end) for text in texts for ids in vocabulary.encode_all(text)]
    stream = np.concatenate(parts)[:-1].astype(np.int32)
    count = -(-len(stream) // inner)
    ids = np.full((count, context), special.pad, np.int32)
    length = np.full(count, context, np.int32)
    length[-1] = len(stream) - inner * (count - 1) + 2
    ids[:, 1:-1] = np.pad(stream, (0, inner * count - len(stream)), constant_values=special.pad).reshape(count, inner)
    ids[:, 0] = special.first
    ids[np.arange(count), length - 1] = special.end
    return Rows(ids, np.zeros_like(ids), length)


def _fitting(sizes: list[int], room: int) -> list[int]:
    """Sizes of texts that have room together."""
    kept = list(sizes)
    while (over := sum(kept) - room) > 0:
        longest = max(range(len(kept)), key=lambda place: kept[place])
        others = max((size for place, size in enumerate(kept) if place != longest), default=0)
        kept[longest] -= min(over, max(1, kept[longest] - others))
    return kept


class Masking(NamedTuple):
    """Rule of masked words (Devlin et al. 2018, section 3.1): of the chosen tokens 80 % become the mask, 10 % another
    token at random, 10 % stay.

    Attributes:
        vocabulary: of the tokens.
        rate: fraction of a row's tokens that are chosen, at least one.
        whole: words are chosen whole, with all their pieces.
    """

    vocabulary: WordPieces
    rate: float
    whole: bool = False

    def most(self, context: int) -> int:
        """Chosen tokens of a row, at most."""
        return max(1, round(self.rate * (context - 2)))

    def draws(self, context: int) -> int:
        """Random numbers of a row."""
        return 3 * context

    def masked(self, rows: dict[str, np.ndarray], draws: Float[np.ndarray, "n draws"]) -> dict[str, np.ndarray]:
        """Arrays of a batch with masked tokens: `ids`, `types` and `length`; `places` and `targets` of the chosen
        tokens, and `chosen`, 1 or 0 where a row has fewer of them.

        Args:
            rows: of `Rows.of`.
            draws: numbers in [0, 1), which decide alone.
        """
        ids = rows["ids"]
        order, how, other = np.split(draws, 3, axis=1)
        places, chosen = self._places(ids, order)
        kept, at = ids[np.arange(len(ids))[:, None], places], np.arange(len(ids))[:, None]
        ordinary = np.setdiff1d(np.arange(self.vocabulary.size), self.vocabulary.special).astype(np.int32)
        random = ordinary[(np.take_along_axis(other, places, 1) * len(ordinary)).astype(np.int64)]
        how = np.take_along_axis(how, places, 1)
        seen = np.where(how < 0.8, self.vocabulary.special.mask, np.where(how < 0.9, random, kept))
        changed = ids.copy()
        changed[at, places] = np.where(chosen, seen, kept)
        return rows | {
            "ids": changed,
            "places": places.astype(np.int32),
            "targets": kept,
            "chosen": chosen.astype(np.float32),
        }

    def _places(self, ids: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, Bool[np.ndarray, "n places"]]:
        """Places of the chosen tokens, and which of them are any."""
        free = ~np.isin(ids, self.vocabulary.special)
        count = np.where(free.any(axis=1), np.clip(np.rint(self.rate * free.sum(axis=1)), 1, None), 0)
        count = np.minimum(count, self.most(ids.shape[1])).astype(np.int64)[:, None]
        score = np.where(free, order, 2.0)
        if self.whole:
            score = self._of_words(ids, free, score)
        places = np.argsort(score, axis=1, kind="stable")[:, : self.most(ids.shape[1])]
        chosen = np.arange(places.shape[1])[None] < count
        if self.whole:
            chosen &= self._complete(ids, places, count)
        return places, chosen

    def _of_words(self, ids: np.ndarray, free: np.ndarray, score: np.ndarray) -> np.ndarray:
        """The score of a word's first piece for all its pieces."""
        inner = self.vocabulary.continues[ids] & free
        start = np.maximum.accumulate(np.where(inner, 0, np.arange(ids.shape[1])[None]), axis=1)
        return np.take_along_axis(score, start, 1)

    def _complete(self, ids: np.ndarray, places: np.ndarray, count: np.ndarray) -> np.ndarray:
        """False for pieces of a word whose last piece is not chosen; the first word of a row is masked in part."""
        wide = ids.shape[1]
        after = np.minimum(places + 1, wide - 1)
        goes_on = self.vocabulary.continues[np.take_along_axis(ids, after, 1)] & (places + 1 < wide)
        ends = ~goes_on & (np.arange(places.shape[1])[None] < count)
        last = np.where(ends, np.arange(places.shape[1])[None], -1).max(axis=1, keepdims=True)
        return np.arange(places.shape[1])[None] <= np.where(last < 0, places.shape[1], last)


def dropped_words(
    vocabulary: WordPieces, ids: Int32[np.ndarray, "n context"], rate: float, draws: Float[np.ndarray, "n context"]
) -> Int32[np.ndarray, "n context"]:
    """Rows in which tokens other than the special ones are masked at random.

    Args:
        rate: probability of each.
        draws: numbers in [0, 1), which decide alone.
    """
    return np.where((draws < rate) & ~np.isin(ids, vocabulary.special), np.int32(vocabulary.special.mask), ids)
