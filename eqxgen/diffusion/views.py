"""Views of a denoised x_0: noise, v, velocity, F and score, each a linear function of x_t and x_0 at a level.

    epsilon   noise = (x_t - alpha x_0) / sigma
    x0        x_0
    v         alpha noise - sigma x_0 (Salimans and Ho 2022, arXiv:2202.00512)
    velocity  noise - x_0, the slope of a straight path (Liu et al. 2023, arXiv:2209.03003)
    F         what EDM's network gives (Karras et al. 2022, arXiv:2206.00364, equation 7)
    score     gradient of log p(x_t): -noise / sigma

float32 at least, whatever comes in. Divisions by sigma and by alpha are bounded here, once: by 1e-12 in place of a
smaller number.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Level

SIGMA_DATA = 0.5
"""Deviation of the data that EDM assumes."""
TINY = 1e-12


class Linear(NamedTuple):
    """`of_x * x_t + of_other * other`."""

    of_x: Float[Array, "*shape"]
    of_other: Float[Array, "*shape"]


def divisor(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x with a magnitude of at least 1e-12."""
    return jnp.where(x < 0, jnp.minimum(x, -TINY), jnp.maximum(x, TINY))


def _epsilon(level: Level, _: float) -> Linear:
    alpha = divisor(level.alpha)
    return Linear(1 / alpha, -level.sigma / alpha)


def _x0(level: Level, _: float) -> Linear:
    return Linear(jnp.zeros_like(level.alpha), jnp.ones_like(level.alpha))


def _v(level: Level, _: float) -> Linear:
    total = level.alpha**2 + level.sigma**2
    return Linear(level.alpha / total, -level.sigma / total)


def _velocity(level: Level, _: float) -> Linear:
    total = level.alpha + level.sigma
    return Linear(1 / total, -level.sigma / total)


def _score(level: Level, _: float) -> Linear:
    alpha = divisor(level.alpha)
    return Linear(1 / alpha, level.sigma**2 / alpha)


def _f(level: Level, sigma_data: float) -> Linear:
    alpha = divisor(level.alpha)
    ratio = level.sigma / alpha
    total = ratio**2 + sigma_data**2
    return Linear(sigma_data**2 / (alpha * total), ratio * sigma_data / jnp.sqrt(total))


VIEWS: dict[str, Callable[[Level, float], Linear]] = {
    "epsilon": _epsilon,
    "x0": _x0,
    "v": _v,
    "velocity": _velocity,
    "F": _f,
    "score": _score,
}
"""x_0 as a function of x_t and each view, by the level and the deviation of the data."""


def inverse(view: str, level: Level, sigma_data: float = SIGMA_DATA) -> Linear:
    """x_0 as a linear function of x_t and the view.

    Args:
        view: epsilon, x0, v, velocity, F or score.
        sigma_data: deviation of the data, for F.

    Raises:
        ValueError: there is no such view.
    """
    if view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}: got {view!r}")
    return VIEWS[view](level, sigma_data)


def coefficients(view: str, level: Level, sigma_data: float = SIGMA_DATA) -> Linear:
    """The view as a linear function of x_t and x_0; see `inverse`."""
    found = inverse(view, level, sigma_data)
    scale = divisor(found.of_other)
    return Linear(-found.of_x / scale, 1 / scale)


def view_of(
    view: str, x: Float[Array, "*x"], x0: Float[Array, "*x"], level: Level, sigma_data: float = SIGMA_DATA
) -> Float[Array, "*x"]:
    """The view of x_t and x_0 at one level."""
    found = coefficients(view, level, sigma_data)
    return found.of_x * x + found.of_other * x0


def x0_of(
    view: str, value: Float[Array, "*x"], x: Float[Array, "*x"], level: Level, sigma_data: float = SIGMA_DATA
) -> Float[Array, "*x"]:
    """x_0 of a view and x_t at one level: the inverse of `view_of`."""
    found = inverse(view, level, sigma_data)
    return found.of_x * x + found.of_other * value


def epsilon_of(x: Float[Array, "*x"], x0: Float[Array, "*x"], level: Level) -> Float[Array, "*x"]:
    """The noise of x_t and x_0 at one level: the view that most solvers need."""
    return view_of("epsilon", x, x0, level)
