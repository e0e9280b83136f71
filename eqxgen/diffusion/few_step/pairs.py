"""Distributions of the two times of an example, as functions of uniform numbers in (0, 1)."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, Int

from eqxgen.configs.diffusion import DiffusionLoss
from eqxgen.diffusion.schedules import Flow
from eqxgen.diffusion.times import time_of_uniform

RHO = 7.0
"""Exponent of the levels of consistency, those of EDM."""


class Times(NamedTuple):
    """Two times, the second at most the first."""

    t: Float[Array, "*shape"]
    r: Float[Array, "*shape"]


def meanflow_times(u: Float[Array, "3 *shape"], rules: DiffusionLoss, equal: float) -> Times:
    """The greater and the less of two draws, equal for a share of the examples (MeanFlow, section 4.3)."""
    first, second = (time_of_uniform(Flow(), each, rules) for each in u[:2])
    t = jnp.maximum(first, second)
    return Times(t, jnp.where(u[2] < equal, t, jnp.minimum(first, second)))


def shortcut_times(u: Float[Array, "3 *shape"], shortest: int, equal: float) -> Times:
    """An interval of a power of a half, from 1 to 1 / shortest, on the grid of its multiples; or for a share of the
    examples equal times, multiples of half the shortest (Frans et al. 2024, arXiv:2410.12557, section 3.2).
    """
    halvings = jnp.floor(u[0] * (math.log2(shortest) + 1))
    count = jnp.where(u[2] < equal, 2.0 * shortest, jnp.exp2(halvings))
    t = (jnp.minimum(jnp.floor(u[1] * count), count - 1) + 1) / count
    return Times(t, jnp.where(u[2] < equal, t, t - 1 / count))


def consistency_times(
    u: Float[Array, "*shape"],
    levels: Int[Array, ""] | int,
    *,
    low: float = 0.002,
    high: float = 80.0,
    mean: float = -1.1,
    std: float = 2.0,
) -> Times:
    """Neighbours among `levels + 1` sigmas of EDM's grid: those between which a lognormal draw is (Song and Dhariwal
    2024, arXiv:2310.14189, equation 8).

    Args:
        levels: number of intervals, traced.
        low, high: least and greatest sigma.
        mean, std: of log sigma.
    """
    ends = [ndtr((math.log(sigma) - mean) / std) for sigma in (low, high)]
    sigma = jnp.exp(mean + std * ndtri(ends[0] + u * (ends[1] - ends[0])))
    first, last = low ** (1 / RHO), high ** (1 / RHO)
    place = jnp.floor((sigma ** (1 / RHO) - first) / (last - first) * levels)
    place = jnp.clip(place, 0, levels - 1)
    at = lambda i: (first + i / levels * (last - first)) ** RHO
    return Times(at(place + 1), at(place))


def levels_at(step: Int[Array, ""] | int, steps: int, first: int, last: int) -> Int[Array, ""]:
    """Number of intervals at a step of training: doubled at even distances from `first` up to `last` (Song and Dhariwal
    2024, equation 7).
    """
    doublings = math.ceil(math.log2(last / first))
    section = jnp.minimum(step // max(1, steps // (doublings + 1)), doublings)
    return jnp.minimum(first * 2**section, last)
