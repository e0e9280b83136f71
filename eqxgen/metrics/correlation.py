"""Correlation of two series of numbers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from eqxgen.metrics.moments import Moments


class Pearson(NamedTuple):
    """Linear correlation of pairs that come batch by batch."""

    moments: Moments = Moments()

    def update(self, first: Num[np.ndarray, " n"], second: Num[np.ndarray, " n"]) -> "Pearson":
        """With more pairs.

        Raises:
            ValueError: other numbers of values, or values that are not finite.
        """
        return self._make((self.moments.update(_pairs(first, second)),))

    def merge(self, other: "Pearson") -> "Pearson":
        """With what another one has seen."""
        return self._make((self.moments.merge(other.moments),))

    def result(self) -> float:
        """The coefficient, in [-1, 1].

        Raises:
            ValueError: fewer than 2 pairs, or a series of equal values.
        """
        if self.moments.rows < 2:
            raise ValueError(f"a correlation needs at least 2 pairs: got {self.moments.rows}")
        (a, between), (_, b) = self.moments.scatter
        if not (a > 0 and b > 0):
            raise ValueError("a correlation needs values that differ: got a series of equal values")
        return float(np.clip(between / (np.sqrt(a) * np.sqrt(b)), -1, 1))


class Spearman(NamedTuple):
    """Correlation of the ranks of pairs, which are kept; equal values share the mean of their ranks."""

    parts: tuple[Float[np.ndarray, "_ 2"], ...] = ()

    def update(self, first: Num[np.ndarray, " n"], second: Num[np.ndarray, " n"]) -> "Spearman":
        """With more pairs; see `Pearson.update`."""
        return self._make(((*self.parts, _pairs(first, second)),))

    def merge(self, other: "Spearman") -> "Spearman":
        """With what another one has seen."""
        return self._make((self.parts + other.parts,))

    def result(self) -> float:
        """The coefficient, in [-1, 1]; see `Pearson.result`."""
        from scipy import stats  # takes half a second

        pairs = np.concatenate([np.zeros((0, 2)), *self.parts])
        return Pearson().update(stats.rankdata(pairs[:, 0]), stats.rankdata(pairs[:, 1])).result()


def _pairs(first: Num[np.ndarray, " n"], second: Num[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"first and second must be as many: got {a.shape} and {b.shape}")
    for name, values in (("first", a), ("second", b)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite")
    return np.stack([a, b], axis=1)
