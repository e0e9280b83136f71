"""Recall of retrieval: queries for which something right is among the first few that a score finds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Recall(NamedTuple):
    """Recall at k of queries that come batch by batch. `Recall.at(1, 5)` has seen none.

    Attributes:
        most: the k.
        hits: queries with something right among the first k, for each k.
        queries: seen so far.
    """

    most: tuple[int, ...]
    hits: tuple[int, ...]
    queries: int = 0

    @classmethod
    def at(cls, *most: int) -> "Recall":
        """The stream of some k, each at least 1.

        Raises:
            ValueError: there is none, or one is no integer of at least 1.
        """
        if not most or not all(isinstance(k, int) and not isinstance(k, bool) and k >= 1 for k in most):
            raise ValueError(f"most must be one or more integers of at least 1: got {most}")
        return cls(most, (0,) * len(most))

    def update(
        self, scores: Float[np.ndarray, "queries gallery"], right: Bool[np.ndarray, "queries gallery"]
    ) -> "Recall":
        """With more queries. What is wrong comes before what is right of the same score, and a score that is NaN
        before all others; a query without anything right is missed.

        Raises:
            ValueError: the two are no tables of one shape.
        """
        if scores.ndim != 2 or scores.shape != right.shape:
            raise ValueError(
                f"scores and right must be (queries, gallery), of one shape: got {scores.shape} and {right.shape}"
            )
        best = np.max(np.where(right, scores, -np.inf), axis=1, initial=-np.inf)
        before = np.sum(~right & ~(scores < best[:, None]), axis=1)
        found = right.any(axis=1) & ~np.isnan(best)
        hits = [old + int(np.sum(found & (before < k))) for old, k in zip(self.hits, self.most)]
        return self._replace(hits=tuple(hits), queries=self.queries + len(scores))

    def merge(self, other: "Recall") -> "Recall":
        """With what another one of the same k has seen.

        Raises:
            ValueError: it is of other k.
        """
        if other.most != self.most:
            raise ValueError(f"other must be of k {self.most}: got {other.most}")
        hits = tuple(mine + theirs for mine, theirs in zip(self.hits, other.hits))
        return self._replace(hits=hits, queries=self.queries + other.queries)

    def result(self) -> dict[int, float]:
        """The share of the queries, by k.

        Raises:
            ValueError: there was no query.
        """
        if not self.queries:
            raise ValueError("a recall needs queries: got none")
        return {k: hits / self.queries for k, hits in zip(self.most, self.hits)}
