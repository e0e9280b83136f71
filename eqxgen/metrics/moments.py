"""Running mean and covariance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Moments(NamedTuple):
    """Number, mean and scatter Σ (x - μ)(x - μ)ᵀ of features that come batch by batch, in float64.

    Parts are joined by the update of Chan, Golub & LeVeque (1983, Algorithms for computing the sample variance,
    equation 2.1), which does not cancel as sums of squares do. The memory is `dim²` whatever the number of rows.
    `Moments()` has seen none.
    """

    count: int = 0
    mean: Float[np.ndarray, " dim"] = np.zeros(0)
    scatter: Float[np.ndarray, "dim dim"] = np.zeros((0, 0))

    def update(self, features: Float[np.ndarray, "n dim"]) -> "Moments":
        """With more rows.

        Raises:
            ValueError: a feature is not finite, or the width is another than before.
        """
        rows = np.asarray(features, np.float64)
        if not np.isfinite(rows).all():
            raise ValueError("features must be finite")
        if len(rows) == 0:
            return self
        mean = rows.mean(axis=0)
        centred = rows - mean
        return self.merge(self._make((len(rows), mean, centred.T @ centred)))

    def merge(self, other: "Moments") -> "Moments":
        """With what another one has seen."""
        if not (self.count and other.count):
            return self if self.count else other
        if len(self.mean) != len(other.mean):
            raise ValueError(f"both sets must have features of one size: got {len(self.mean)} and {len(other.mean)}")
        count, shift = self.count + other.count, other.mean - self.mean
        between = self.count * other.count / count * np.outer(shift, shift)
        return self._make((count, self.mean + other.count / count * shift, self.scatter + other.scatter + between))

    def covariance(self) -> Float[np.ndarray, "dim dim"]:
        """The scatter divided by n - 1.

        Raises:
            ValueError: fewer than two rows were seen.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows: got {self.count}")
        return self.scatter / (self.count - 1)
