"""Learned variances of DDPM's steps, the variational bound, and bits per dimension.

A step from t to s = t - 1 / T is normal with mean (β √ᾱ_s x_0 + (1 - ᾱ_s) √α x_t) / (1 - ᾱ_t). Its variance is between
that of the posterior, β (1 - ᾱ_s) / (1 - ᾱ_t), and β: a network that learns it gives the place between their logarithms
(Nichol and Dhariwal 2021, arXiv:2102.09672, equation 15). The first step has the posterior's variance of the second.

All numbers of the steps are computed in float64 on the host.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.diffusion.precondition import Denoised
from eqxgen.diffusion.schedules import Discrete, Schedule
from eqxgen.protocols import Denoiser


class Steps(NamedTuple):
    """Numbers of DDPM's steps, each (T,).

    Attributes:
        of_x0, of_x: coefficients of the posterior's mean.
        least, most: logarithms of the posterior's variance and of beta.
        last: ᾱ of the last step.
    """

    of_x0: Float[np.ndarray, " steps"]
    of_x: Float[np.ndarray, " steps"]
    least: Float[np.ndarray, " steps"]
    most: Float[np.ndarray, " steps"]
    last: float


@functools.cache
def steps_of_betas(betas: tuple[float, ...]) -> Steps:
    """Numbers of the steps of these betas."""
    beta = np.asarray(betas)
    level = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], level[:-1]])
    variance = beta * (1 - before) / (1 - level)
    least = np.log(np.concatenate([variance[1:2], variance[1:]]))
    of_x = (1 - before) * np.sqrt(1 - beta) / (1 - level)
    return Steps(beta * np.sqrt(before) / (1 - level), of_x, least, np.log(beta), float(level[-1]))


class BitsPerDimension(NamedTuple):
    """The variational bound of an example, in bits per dimension.

    Attributes:
        total: the bound.
        prior: its part of the last level, which no network changes.
        steps: its part of each step, (T,), the first from data.
    """

    total: Float[Array, ""]
    prior: Float[Array, ""]
    steps: Float[Array, " steps"]


def variational_bound(
    schedule: Schedule,
    found: Denoised,
    x0: Float[Array, "*shape"],
    x: Float[Array, "*shape"],
    t: Float[Array, ""],
    *,
    levels: int = 256,
) -> Float[Array, ""]:
    """T times the bound of one step in bits per dimension: an estimate of the whole where t is uniform. No gradient
    reaches the denoised example.

    Args:
        schedule: with steps, of which t is one.
        found: denoised example and place of its log-variance.
        x0: the example.
        x: the noised example.
        levels: number of grey levels of data in [-1, 1].

    Raises:
        ValueError: the schedule has no steps.
    """
    table = _table(schedule)
    step = _step(schedule, t)
    log_variance = _between(table, step, found.fraction)
    return len(table.least) * _bound(table, step, jax.lax.stop_gradient(found.x0), log_variance, x0, x, levels)


def bits_per_dimension(
    denoiser: Denoiser,
    x0: Float[Array, "*shape"],
    condition: Any = None,
    *,
    variance: str = "learned",
    clip: bool = True,
    levels: int = 256,
    key: PRNGKeyArray,
) -> BitsPerDimension:
    """The variational bound of one example over all T steps of its schedule, one evaluation each.

    Args:
        denoiser: with a schedule of steps.
        x0: example in [-1, 1].
        condition: label, or None.
        variance: learned; or that of the posterior, `least`, or beta, `most`.
        clip: bound the denoised examples by [-1, 1].
        levels: number of grey levels.
        key: of the noise, which differs between the steps.

    Raises:
        ValueError: the schedule has no steps, the variance is unknown, or learned while the denoiser has none.
    """
    if variance not in ("learned", "least", "most"):
        raise ValueError(f"variance must be learned, least or most: got {variance!r}")
    if variance == "learned" and not hasattr(denoiser, "variance"):
        raise ValueError("variance learned must have a denoiser with `variance`: got none; least and most need none")
    table = _table(denoiser.schedule)
    count = len(table.least)

    def one(step: Int[Array, ""]) -> Float[Array, ""]:
        t = (step + 1) / count
        noise = jr.normal(jr.fold_in(key, step), x0.shape)
        x = denoiser.schedule(t).diffuse(x0, noise)
        if variance == "learned":
            mean, fraction = denoiser.variance(x, t, condition, inference=True)  # pyright: ignore
        else:
            mean = denoiser(x, t, condition, inference=True)
            fraction = jnp.full(mean.shape, 0.0 if variance == "least" else 1.0)
        mean = jnp.clip(mean, -1, 1) if clip else mean
        return _bound(table, step, mean, _between(table, step, fraction), x0, x, levels)

    terms = jax.lax.map(one, jnp.arange(count))
    signal = math.sqrt(table.last)
    prior = jnp.mean(_divergence(signal * x0, math.log1p(-table.last), jnp.zeros(()), 0.0)) / math.log(2)
    return BitsPerDimension(jnp.sum(terms) + prior, prior, terms)


def _table(schedule: Schedule) -> Steps:
    if not isinstance(schedule, Discrete):
        raise ValueError(
            f"schedule must have steps for a variational bound: got {type(schedule).__name__}; linear and cosine do"
        )
    return steps_of_betas(schedule.betas)


def _step(schedule: Schedule, t: Float[Array, ""]) -> Int[Array, ""]:
    return jnp.round(t * len(_table(schedule).least)).astype(jnp.int32) - 1


def _at(numbers: Float[np.ndarray, " steps"], step: Int[Array, ""]) -> Float[Array, ""]:
    return jnp.asarray(numbers, jnp.float32)[step]


def _between(table: Steps, step: Int[Array, ""], fraction: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    least, most = _at(table.least, step), _at(table.most, step)
    return fraction * most + (1 - fraction) * least


def _bound(
    table: Steps,
    step: Int[Array, ""],
    mean: Float[Array, "*shape"],
    log_variance: Float[Array, "*shape"],
    x0: Float[Array, "*shape"],
    x: Float[Array, "*shape"],
    levels: int,
) -> Float[Array, ""]:
    """Divergence of a step's distributions, or at the first the negative log-likelihood, in bits per dimension."""
    of_x0, of_x = _at(table.of_x0, step), _at(table.of_x, step)
    true, guess = of_x0 * x0 + of_x * x, of_x0 * mean + of_x * x
    divergence = _divergence(true, _at(table.least, step), guess, log_variance)
    likelihood = log_likelihood(x0, guess, log_variance / 2, levels)
    return jnp.mean(jnp.where(step == 0, -likelihood, divergence)) / math.log(2)


def _divergence(mean: Any, log_variance: Any, other_mean: Any, other_log_variance: Any) -> Float[Array, "*shape"]:
    """Kullback-Leibler divergence of two normal distributions, in nats."""
    gap = log_variance - other_log_variance
    return 0.5 * (-1 - gap + jnp.exp(gap) + jnp.square(mean - other_mean) * jnp.exp(-other_log_variance))


def log_likelihood(
    x: Float[Array, "*shape"], mean: Float[Array, "*shape"], log_deviation: Float[Array, "*shape"], levels: int = 256
) -> Float[Array, "*shape"]:
    """Logarithm of the normal probability of the grey level of each element, of evenly spaced levels in [-1, 1] of
    which the outer ones reach to infinity (Ho et al. 2020, arXiv:2006.11239, equation 13).

    As in guided diffusion, the distribution function is approximated by a tanh, and a probability is at least 1e-12.
    """
    half = 1 / (levels - 1)
    upper, lower = (_cumulative((x - mean + side) * jnp.exp(-log_deviation)) for side in (half, -half))
    inner = jnp.where(x > 1 - 0.001, 1 - lower, upper - lower)
    return jnp.log(jnp.maximum(jnp.where(x < -0.999, upper, inner), 1e-12))


def _cumulative(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
