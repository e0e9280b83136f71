"""Distributions of the training times, each the inverse of its distribution function: u in (0, 1) -> t.

    uniform       t; a whole step of a discrete schedule; log sigma of ve and edm, from 0.002 on
    lognormal     sigma / alpha = exp(mean + std z) (Karras et al. 2022, arXiv:2206.00364, table 1)
    logit_normal  t / end = logistic(mean + std z) (Esser et al. 2024, arXiv:2403.03206, section 3.1)
    cosine        log SNR of cosine schedules shifted to sides of 32 and of 64, interpolated (Hoogeboom et al. 2023,
                  arXiv:2301.11093, section 3.1), with sigma / alpha in σ_data · [0.001, 1000]

Being functions of u, all can be stratified: evenly spaced u give a batch with one time in each part of the
distribution.
"""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from eqxgen.configs.diffusion import DiffusionLoss
from eqxgen.diffusion.schedules import VE, Schedule, steps_of
from eqxgen.diffusion.views import SIGMA_DATA

LEAST = 1e-5
"""Least uniform time of a continuous schedule, as a share of its end."""
LEAST_SIGMA = 0.002
"""Least sigma of a uniform time of ve and edm."""


def uniforms(
    keys: Array, stratified: bool = False, *, places: Int[Array, " n"] | None = None, size: int | None = None
) -> Float[Array, " n"]:
    """Numbers in (0, 1), one for each key.

    Args:
        stratified: the one at place i of a batch of `size` is in (i / size, (i + 1) / size).
        places: those of the keys in the batch, of which a device or a micro-batch has a part, modulo `size`; by
            default the keys are the whole batch.
        size: of the batch; by default the number of keys.
    """
    drawn = jax.vmap(lambda key: jr.uniform(key, minval=1e-6, maxval=1 - 1e-6))(keys)
    if not stratified:
        return drawn
    size, places = size or len(drawn), jnp.arange(len(drawn)) if places is None else places
    return (places % size + drawn) / size


def time_of_uniform(
    schedule: Schedule,
    u: Float[Array, "*shape"],
    rules: DiffusionLoss,
    *,
    sigma_data: float = SIGMA_DATA,
    side: int = 64,
) -> Float[Array, "*shape"]:
    """Times of numbers in (0, 1), none after the schedule's end but for ve and edm.

    Args:
        sigma_data: deviation of the data, of cosine.
        side: of the images in pixels, of cosine.
    """
    if rules.times == "uniform":
        return _uniform(schedule, u)
    if rules.times == "logit_normal":
        return schedule.end * jax.nn.sigmoid(rules.mean + rules.std * jax.scipy.special.ndtri(u))
    if rules.times == "lognormal":
        ratio = jnp.exp(rules.mean + rules.std * jax.scipy.special.ndtri(u))
    else:
        ratio = sigma_data * jnp.exp(-_interpolated(u, side) / 2)
    t = schedule.time(ratio)
    return t if isinstance(schedule, VE) else jnp.minimum(t, schedule.end)


def _uniform(schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    if (steps := steps_of(schedule)) is not None:
        return (jnp.minimum(jnp.floor(u * steps), steps - 1) + 1) / steps
    if isinstance(schedule, VE):
        low, high = math.log(LEAST_SIGMA), math.log(schedule.end)
        return jnp.exp(low + (high - low) * u)
    return schedule.end * (LEAST + (1 - LEAST) * u)


def _interpolated(u: Float[Array, "*shape"], side: int) -> Float[Array, "*shape"]:
    """log SNR relative to the data's, falling with u."""
    low, high = (_shifted_cosine(u, 2 * math.log(noise / side)) for noise in (32, 64))
    return low + u * (high - low)


def _shifted_cosine(u: Float[Array, "*shape"], shift: float, most: float = 2 * math.log(1000)) -> Array:
    first, last = math.atan(math.exp(-(most - shift) / 2)), math.atan(math.exp((most + shift) / 2))
    return -2 * jnp.log(jnp.tan(first + u * (last - first))) + shift
