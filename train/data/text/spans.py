"""Span corruption (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4): spans of a text are replaced by sentinels, and
the target is each sentinel with the tokens of its span.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .pair_vocabulary import END


class Spans(NamedTuple):
    """Lengths of an example.

    Attributes:
        tokens: of the text.
        hidden: of them, those in spans.
        number: number of the spans.
    """

    tokens: int
    hidden: int
    number: int

    @property
    def source(self) -> int:
        """Tokens of the source, with a sentinel for each span and the end."""
        return self.tokens - self.hidden + self.number + 1

    @property
    def target(self) -> int:
        """Tokens of the target, with the end."""
        return self.hidden + self.number + 1

    @classmethod
    def of(cls, tokens: int, noise: float, span: float) -> "Spans":
        """Lengths for a text of so many tokens: the nearest numbers that leave a token between spans."""
        hidden = min(max(round(tokens * noise), 1), tokens - 1)
        count = min(max(round(hidden / span), 1), hidden, tokens - hidden)
        return cls(tokens, hidden, count)

    @classmethod
    def filling(cls, source: int, noise: float, span: float) -> "Spans":
        """Lengths for the longest text whose source has at most so many tokens.

        Raises:
            ValueError: the source has no room for a token, a sentinel and the end.
        """
        if source < 3:
            raise ValueError(f"source must have at least 3 tokens, one, a sentinel and the end: got {source}")
        tokens = 2
        while cls.of(tokens + 1, noise, span).source <= source:
            tokens += 1
        return cls.of(tokens, noise, span)


def hidden_tokens(spans: Spans, drawn: Float[np.ndarray, " tokens"]) -> Bool[np.ndarray, " tokens"]:
    """True for the tokens in spans: the hidden ones and the others are each cut into `count` parts at random, each way
    of cutting equally likely, and the parts alternate; the first is not hidden.

    Args:
        spans: the lengths.
        drawn: uniform numbers, `tokens` of them.
    """
    others = spans.tokens - spans.hidden
    first, last = (
        _parts(others, spans.number, drawn[:others]),
        _parts(spans.hidden, spans.number, drawn[others:]),
    )
    lengths = np.stack([first, last], axis=1).reshape(-1)
    return np.repeat(np.arange(2 * spans.number) % 2 == 1, lengths)


def _parts(size: int, count: int, drawn: np.ndarray) -> Int[np.ndarray, " count"]:
    cuts = np.sort(np.argsort(drawn[: size - 1])[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [size]]))


def corrupted(
    ids: Int[np.ndarray, " tokens"], hidden: Bool[np.ndarray, " tokens"], sentinels: Int[np.ndarray, " count"]
) -> tuple[Int[np.ndarray, " source"], Int[np.ndarray, " target"]]:
    """Source and target of a text, each with its end.

    Args:
        ids: the text.
        hidden: tokens in spans; the first is not.
        sentinels: an id for each span, in order.
    """
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    places = np.flatnonzero(begins)
    marks = sentinels[: len(places)]
    source = np.where(begins, 0, ids)
    source[places] = marks
    target = np.insert(ids[hidden], np.searchsorted(np.flatnonzero(hidden), places), marks)
    return np.append(source[~hidden | begins], END), np.append(target, END)
