"""Learned uncertainty of a denoiser by level, which balances the levels of a loss (Karras et al. 2024,
arXiv:2312.02696, equation 21). It is trained beside the network and left out afterwards.
"""

import math
from statistics import NormalDist

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.views import divisor

FEATURES = 128


class LogVariance(eqx.Module):
    """Logarithm of the variance of the weighted error, 0 at initialisation.

    A linear map of cosines of ln(sigma / alpha) / 4. Difference: frequencies are quantiles of the normal distribution,
    not draws from it.

    Args:
        features: number of cosines.
    """

    weight: Float[Array, " features"]

    def __init__(self, features: int = FEATURES):
        self.weight = jnp.zeros(features)

    def __call__(self, level: Level) -> Float[Array, ""]:
        """The log-variance at one level."""
        count = len(self.weight)
        place = (np.arange(count) + 0.5) / count
        frequency = np.asarray([NormalDist().inv_cdf(p) for p in place], np.float32)
        phase = (place * (1 + math.sqrt(5)) / 2 * count) % 1  # spread evenly, independent of the frequency's order
        angle = 2 * math.pi * (frequency * jnp.log(divisor(level.ratio)) / 4 + phase.astype(np.float32))
        return math.sqrt(2 / count) * self.weight @ jnp.cos(angle)
