"""Running mean and covariance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import checked


class Moments(NamedTuple):
    """Number, mean and scatter Σ (x - μ)(x - μ)ᵀ of features that come batch by batch, in float64.

    Parts are joined by the update of Chan, Golub & LeVeque (1983, Algorithms for computing the sample variance,
    equation 2.1), which does not cancel as sums of squares do. The memory is `dim²` whatever the number of rows.
    `Moments()` has seen none.
    """

    rows: int = 0
    mean: Float[np.ndarray, " dim"] = np.zeros(0)
    scatter: Float[np.ndarray, "dim dim"] = np.zeros((0, 0))

    def update(self, features: Float[np.ndarray, "n dim"]) -> "Moments":
        """With more rows.

        Raises:
            ValueError: a feature is not finite, or the width is another than before.
        """
        values = checked("features", features).astype(np.float64)
        if len(values) == 0:
            return self
        mean = values.mean(axis=0)
        centred = values - mean
        if not self.rows or len(mean) != len(self.mean):
            return self.merge(self._make((len(values), mean, centred.T @ centred)))
        # The shift between the parts is one more row of the product, instead of three passes over dim².
        count, shift = self.rows + len(values), mean - self.mean
        centred = np.vstack([centred, np.sqrt(self.rows * len(values) / count) * shift])
        return self._make((count, self.mean + len(values) / count * shift, self.scatter + centred.T @ centred))

    def merge(self, other: "Moments") -> "Moments":
        """With what another one has seen."""
        if not (self.rows and other.rows):
            return self if self.rows else other
        if len(self.mean) != len(other.mean):
            raise ValueError(f"both sets must have features of one size: got {len(self.mean)} and {len(other.mean)}")
        count, shift = self.rows + other.rows, other.mean - self.mean
        between = self.rows * other.rows / count * np.outer(shift, shift)
        return self._make((count, self.mean + other.rows / count * shift, self.scatter + other.scatter + between))

    def covariance(self) -> Float[np.ndarray, "dim dim"]:
        """The scatter divided by n - 1.

        Raises:
            ValueError: fewer than two rows were seen.
        """
        if self.rows < 2:
            raise ValueError(f"a covariance needs at least 2 rows: got {self.rows}")
        return self.scatter / (self.rows - 1)
