"""Ends of texts: ids after which a sequence is complete, and strings before which a text is cut."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from eqxgen.decoding.traced import NO_TOKEN
from eqxgen.nn import _check

Stop = Sequence[int] | _check.Ids
"""Ids that end a sequence."""


def stop_ids(stop: Stop, vocab: int, name: str = "stop") -> Int32[np.ndarray, " count"]:
    """The ids that end a sequence.

    Raises:
        ValueError: they are not integers in [0, vocab).
    """
    values = list(stop) if isinstance(stop, Sequence) else stop
    found = np.atleast_1d(np.asarray(_check.integers(values, name)))
    if found.size and not 0 <= int(found.min()) <= int(found.max()) < vocab:
        raise ValueError(f"{name} must be in [0, vocab={vocab}): got values from {found.min()} to {found.max()}")
    return found.astype(np.int32)


def lengths(ids: Int[np.ndarray, "*n length"]) -> Int[np.ndarray, "*n"]:
    """Tokens of each sequence of `generate` or `beam_search`, its stop id included."""
    return np.asarray(np.sum(ids != NO_TOKEN, axis=-1))


class Until:
    """A text as it comes in pieces, up to the first complete of some strings. The end of a piece that may begin such a
    string is held back until the next decides, so that pieces of any size give the same text.

    Attributes:
        held: text that is held back.
        ended: a string has come; nothing follows.
    """

    def __init__(self, strings: Sequence[str] = ()):
        self.strings, self.held, self.ended = tuple(strings), "", False

    def __call__(self, piece: str) -> str:
        """The text that the piece completes. Of strings that end together, the longest is cut off."""
        for char in "" if self.ended else piece:
            self.held += char
            if found := [string for string in self.strings if self.held.endswith(string)]:
                self.held, self.ended = self.held[: -max(map(len, found))], True
                return self.rest()
        return self._released(len(self.held) - self._begun())

    def rest(self) -> str:
        """The text that is still held back, at the end."""
        return self._released(len(self.held))

    def _released(self, count: int) -> str:
        text, self.held = self.held[:count], self.held[count:]
        return text

    def _begun(self) -> int:
        """Length of the longest beginning of a string at the end of what is held."""
        return max(
            (n for string in self.strings for n in range(1, len(string)) if self.held.endswith(string[:n])), default=0
        )


def cut(text: str, strings: Sequence[str]) -> str:
    """The text up to the first complete of the strings."""
    until = Until(strings)
    return until(text) + until.rest()
