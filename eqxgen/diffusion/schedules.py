"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) noise.

t = 0 is data, with alpha 1 and sigma 0 exactly, and t grows with the noise up to `end`. t is in [0, 1], except for
`VE`, whose t is sigma itself. A discrete schedule of T steps has step i of [0, T) at t = (i + 1) / T. Between its steps
log (sigma / alpha) is linear in t; before the first, sigma / alpha is.

All numbers of a schedule are static: it has no parameters, and a denoiser that holds one trains its network alone.
Steps are computed in float64 on the host, levels in float32 at least.
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.configs.diffusion import ScheduleConfig

Time = Float[Array, "*shape"] | Float[np.ndarray, "*shape"] | np.floating | float | int


class Level(NamedTuple):
    """Noise level of x_t = alpha x_0 + sigma noise."""

    alpha: Float[Array, "*shape"]
    sigma: Float[Array, "*shape"]

    @property
    def ratio(self) -> Float[Array, "*shape"]:
        """sigma / alpha: noise per signal, infinite where alpha is 0."""
        return self.sigma / self.alpha

    @property
    def snr(self) -> Float[Array, "*shape"]:
        """(alpha / sigma)²: signal-to-noise ratio, infinite where sigma is 0."""
        return jnp.square(self.alpha / self.sigma)

    def diffuse(self, x0: Float[Array, "*x"], noise: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """x_t of an example and noise, at one level."""
        return self.alpha * x0 + self.sigma * noise


class Schedule(eqx.Module):
    """Base of the schedules."""

    def __call__(self, t: Time) -> Level:
        """Level of times of any shape."""
        raise NotImplementedError

    def time(self, ratio: Time) -> Float[Array, "*shape"]:
        """Times at which sigma / alpha is `ratio`: the inverse of the schedule."""
        raise NotImplementedError

    @property
    def end(self) -> float:
        """Time of noise."""
        return 1.0


class Discrete(Schedule):
    """Variance-preserving schedule of T steps (Ho et al. 2020, arXiv:2006.11239): alpha² is the product of 1 - beta.

    Args:
        betas: variance added by each step, each in (0, 1); the last may be 1. At least two.

    Raises:
        ValueError: a beta is out of range.
    """

    betas: tuple[float, ...] = eqx.field(static=True)

    def __check_init__(self):
        if len(self.betas) < 2:
            raise ValueError(f"betas must be at least 2: got {len(self.betas)}")
        for i, beta in enumerate(self.betas):
            if not (0 < beta < 1 or (beta == 1 and i == len(self.betas) - 1)):
                raise ValueError(f"betas must be in (0, 1), of which the last may be 1: got {beta} at step {i}")

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.betas)

    def __call__(self, t: Time) -> Level:
        knots = _knots(self.betas)
        place = _place(t, self.steps)
        i = jnp.clip(jnp.floor(place), 0, self.steps - 2).astype(jnp.int32)
        low, high, part = jnp.asarray(knots)[i], jnp.asarray(knots)[i + 1], place - i
        rise = jnp.where(jnp.isinf(high), 0, high - low)
        # The last interval of a schedule that ends without signal has alpha / sigma linear in t instead.
        inner = jnp.where(jnp.isinf(high), low - jnp.log1p(-part), low + part * rise)
        outer = knots[0] + jnp.log(jnp.maximum(place + 1, 0))
        return _of_log_ratio(jnp.where(place < 0, outer, inner))

    def time(self, ratio: Time) -> Float[Array, "*shape"]:
        knots, log_ratio = _knots(self.betas), jnp.log(_array(ratio))
        i = jnp.clip(jnp.searchsorted(jnp.asarray(knots), log_ratio, side="right") - 1, 0, self.steps - 2)
        low, high = jnp.asarray(knots)[i], jnp.asarray(knots)[i + 1]
        rise = jnp.where(jnp.isinf(high), 1, high - low)
        part = jnp.where(jnp.isinf(high), -jnp.expm1(low - log_ratio), (log_ratio - low) / rise)
        first = _array(ratio) / math.exp(knots[0])
        return jnp.where(log_ratio < knots[0], first, i + 1 + part) / self.steps


class VP(Schedule):
    """Variance-preserving diffusion with a linear beta(t) (Song et al. 2021, arXiv:2011.13456, equation 32):
    alpha² = exp(-(rise t² / 2 + low t)).

    Args:
        low: beta at 0.
        rise: beta at 1 less beta at 0.
    """

    low: float = eqx.field(static=True, default=0.1)
    rise: float = eqx.field(static=True, default=19.9)

    def __call__(self, t: Time) -> Level:
        t = _array(t)
        total = t * (self.rise / 2 * t + self.low)
        return Level(jnp.exp(-total / 2), jnp.sqrt(-jnp.expm1(-total)))

    def time(self, ratio: Time) -> Float[Array, "*shape"]:
        total = jnp.log1p(jnp.square(_array(ratio)))
        return 2 * total / (jnp.sqrt(self.low**2 + 2 * self.rise * total) + self.low)


class VE(Schedule):
    """Variance-exploding diffusion, alpha 1, by its sigma: t is sigma (Karras et al. 2022, arXiv:2206.00364).

    Args:
        most: sigma of noise: 80 in EDM, 100 in Song et al. 2021 for 32 x 32 images.
    """

    most: float = eqx.field(static=True, default=80.0)

    @property
    def end(self) -> float:
        return self.most

    def __call__(self, t: Time) -> Level:
        t = _array(t)
        return Level(jnp.ones_like(t), t)

    def time(self, ratio: Time) -> Float[Array, "*shape"]:
        return _array(ratio)


class Flow(Schedule):
    """The linear path of flow matching: alpha = 1 - t, sigma = t (Lipman et al. 2023, arXiv:2210.02747; Liu et al.
    2023, arXiv:2209.03003). Its velocity is noise - x_0.
    """

    def __call__(self, t: Time) -> Level:
        t = _array(t)
        return Level(1 - t, t)

    def time(self, ratio: Time) -> Float[Array, "*shape"]:
        ratio = _array(ratio)
        return jnp.where(ratio > 1, 1 / (1 + 1 / jnp.maximum(ratio, 1)), ratio / (1 + jnp.minimum(ratio, 1)))


def betas_of(name: str, steps: int, low: float = 1e-4, high: float = 0.02) -> tuple[float, ...]:
    """Betas of a discrete schedule, computed in float64.

    linear          from low to high (Ho et al. 2020, section 4)
    scaled_linear   squares from √low to √high (Rombach et al. 2022; Stable Diffusion has 0.00085 and 0.012)
    sigmoid         low + (high - low) · logistic from -6 to 6 (Xu et al. 2022, arXiv:2203.02923; diffusers)
    cosine          alpha² = cos² of (t + 0.008) / 1.008 · π / 2 (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17)
    sqrt            alpha² = 1 - √(t + 0.0001) (Li et al. 2022, arXiv:2205.14217, appendix A)
    sigmoid_level   alpha² falls along a logistic from -3 to 3 (Jabri et al. 2022, arXiv:2212.11972)

    Args:
        low, high: first and last beta of those that have them.

    Raises:
        ValueError: the name is unknown, or there are fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2: got {steps}")
    if name in _BETAS:
        found = _BETAS[name](steps, low, high)
    elif name in _LEVELS:
        alphas = np.asarray([_LEVELS[name](i / steps) for i in range(steps + 1)])
        found = np.clip(1 - alphas[1:] / alphas[:-1], 1e-9, 0.999)
    else:
        raise ValueError(f"schedule must be one of {', '.join([*_BETAS, *_LEVELS])}: got {name!r}")
    return tuple(found.tolist())


def schedule_of(config: ScheduleConfig) -> Schedule:
    """The schedule of a config."""
    if config.name in ("ve", "edm"):
        return VE(config.sigma_max)
    if config.name == "flow":
        return Flow()
    if config.name == "vp":
        return VP()
    betas = betas_of(config.name, config.steps, config.low, config.high)
    return Discrete(zero_terminal(betas) if config.zero_terminal else betas)


def zero_terminal(betas: tuple[float, ...]) -> tuple[float, ...]:
    """Betas of the schedule whose alpha is shifted and scaled so that it ends without signal, while its first stays
    (Lin et al. 2024, arXiv:2305.08891, algorithm 1). The last beta is 1.
    """
    alpha = np.sqrt(np.cumprod(1 - np.asarray(betas)))
    level = np.square((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1]))
    return tuple((1 - level / np.concatenate([[1.0], level[:-1]])).tolist())


def steps_of(schedule: Schedule) -> int | None:
    """Number of steps of a discrete schedule; None of a continuous one."""
    return schedule.steps if isinstance(schedule, Discrete) else None


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


_BETAS = {
    "linear": lambda steps, low, high: np.linspace(low, high, steps),
    "scaled_linear": lambda steps, low, high: np.linspace(low**0.5, high**0.5, steps) ** 2,
    "sigmoid": lambda steps, low, high: low + (high - low) / (1 + np.exp(-np.linspace(-6, 6, steps))),
}
_LEVELS = {
    "cosine": lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2,
    "sqrt": lambda t: 1 - math.sqrt(t + 1e-4),
    "sigmoid_level": lambda t: (_logistic(3.0) - _logistic(6 * t - 3)) / (_logistic(3.0) - _logistic(-3.0)),
}


@functools.cache
def _knots(betas: tuple[float, ...]) -> Float[np.ndarray, " steps"]:
    """log (sigma / alpha) after each step, in float32."""
    with np.errstate(divide="ignore"):  # a last beta of 1: no signal
        total = -np.cumsum(np.log1p(-np.asarray(betas)))
    return (np.log(np.expm1(np.minimum(total, 600)) + np.where(total > 600, np.inf, 0)) / 2).astype(np.float32)


def _place(t: Time, steps: int) -> Float[Array, "*shape"]:
    """Step of each time, rounded to a whole one where float32 cannot tell it from that."""
    place = _array(t) * steps - 1
    whole = jnp.round(place)
    return jnp.where(jnp.abs(place - whole) < steps * 2.5e-7, whole, place)


def _of_log_ratio(log_ratio: Float[Array, "*shape"]) -> Level:
    """The level with alpha² + sigma² = 1."""
    return Level(jnp.sqrt(jax.nn.sigmoid(-2 * log_ratio)), jnp.sqrt(jax.nn.sigmoid(2 * log_ratio)))


def _array(t: Time) -> Float[Array, "*shape"]:
    t = jnp.asarray(t)
    return widen(t)
