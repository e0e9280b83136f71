"""Peak signal-to-noise ratio."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqxgen.metrics.mean import Mean

_SMALLEST = 1e-12


def psnr(mean_squared_error: Float[Array, "*batch"] | float, peak: float = 2.0) -> Float[Array, "*batch"]:
    """10 log10(peak² / mse) in dB; `peak` is the range of the values, 2 for images in [-1, 1]."""
    return 10 * jnp.log10(peak**2 / jnp.maximum(jnp.asarray(mean_squared_error), _SMALLEST))


class PSNR(NamedTuple):
    """Mean over images of their PSNR in dB, and of their squared error, in float64."""

    decibels: Mean = Mean()
    error: Mean = Mean()

    def update(self, mean_squared_errors: Float[np.ndarray, " n"], peak: float = 2.0) -> "PSNR":
        """With more images, of which each has one error."""
        errors = np.asarray(mean_squared_errors, np.float64)
        decibels = 10 * np.log10(peak**2 / np.maximum(errors, _SMALLEST))
        return self._make((self.decibels.update(decibels), self.error.update(errors)))

    def merge(self, other: "PSNR") -> "PSNR":
        """With what another one has seen."""
        return self._make(mine.merge(theirs) for mine, theirs in zip(self, other))

    def result(self) -> float:
        """Mean PSNR in dB; the mean of the squared errors is `error.result()`."""
        return self.decibels.result()
