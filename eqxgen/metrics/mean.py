"""Running means in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Num, Shaped


class Mean(NamedTuple):
    """A weighted mean of numbers that come batch by batch. `Mean()` has seen none."""

    total: float = 0.0
    weight: float = 0.0

    def update(self, values: Shaped[np.ndarray, "..."], weight: Shaped[np.ndarray, "..."] | float = 1.0) -> "Mean":
        """With more values, each of a weight that broadcasts against them; 1 each by default."""
        values = np.asarray(values, np.float64)
        weight = np.broadcast_to(np.asarray(weight, np.float64), values.shape)
        return self._make((self.total + float(np.sum(values * weight)), self.weight + float(np.sum(weight))))

    def add(self, total: Num[np.ndarray, "..."], weight: Num[np.ndarray, "..."]) -> "Mean":
        """With sums over parts: of values times weights, and of the weights."""
        sums = (float(np.sum(part, dtype=np.float64)) for part in (total, weight))
        return self._make(old + new for old, new in zip(self, sums))

    def merge(self, other: "Mean") -> "Mean":
        """With what another one has seen."""
        return self._make(mine + theirs for mine, theirs in zip(self, other))

    def result(self) -> float:
        """The mean.

        Raises:
            ValueError: the weights seen so far sum to 0.
        """
        if self.weight == 0:
            raise ValueError("a mean needs values of a positive weight: got none")
        return self.total / self.weight


class Accuracy(NamedTuple):
    """Share of guesses that equal their labels."""

    hits: Mean = Mean()

    def update(self, guesses: Integer[np.ndarray, " n"], labels: Integer[np.ndarray, " n"]) -> "Accuracy":
        """With more guesses."""
        return self._make((self.hits.update(np.asarray(guesses) == np.asarray(labels)),))

    def merge(self, other: "Accuracy") -> "Accuracy":
        """With what another one has seen."""
        return self._make((self.hits.merge(other.hits),))

    def result(self) -> float:
        """The share, in [0, 1]."""
        return self.hits.result()


class CrossEntropy(NamedTuple):
    """Mean cross-entropy of tokens, in nats."""

    nats: Mean = Mean()

    def update(
        self, losses: Float[np.ndarray, "..."], weight: Shaped[np.ndarray, "..."] | float = 1.0
    ) -> "CrossEntropy":
        """With more tokens' losses; weight 0 leaves one out."""
        return self._make((self.nats.update(losses, weight),))

    def merge(self, other: "CrossEntropy") -> "CrossEntropy":
        """With what another one has seen."""
        return self._make((self.nats.merge(other.nats),))

    def result(self) -> float:
        """Nats per token."""
        return self.nats.result()

    def perplexity(self) -> float:
        """exp of the nats per token."""
        return float(np.exp(self.result()))
