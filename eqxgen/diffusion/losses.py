"""The loss of a denoiser: one squared or other distance of x_0, weighted by the level.

    loss = mean over elements of distance(√weight(level) · (D(x_t) - x_0)),   x_t = alpha x_0 + sigma noise

A prediction of noise, v or velocity is trained by the weight under which this is its own squared error, so that there
is no loss of each parametrisation.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs.diffusion import DiffusionLoss
from eqxgen.diffusion.distances import distance_of
from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.uncertainty import LogVariance
from eqxgen.diffusion.variance import variational_bound
from eqxgen.diffusion.views import SIGMA_DATA
from eqxgen.diffusion.weighting import weight_of
from eqxgen.protocols import Denoiser


class DenoisingLoss(NamedTuple):
    """Loss of one example.

    Attributes:
        loss: what is minimised.
        error: mean squared error of x_0.
        bound: T times the variational bound of the step, in bits per dimension; 0 without learned variance.
    """

    loss: Float[Array, ""]
    error: Float[Array, ""]
    bound: Float[Array, ""]


def denoising_loss(
    denoiser: Denoiser,
    x0: Float[Array, "*shape"],
    t: Float[Array, ""],
    condition: Any = None,
    *,
    noise: Float[Array, "*shape"],
    rules: DiffusionLoss,
    sigma_data: float = SIGMA_DATA,
    uncertainty: LogVariance | None = None,
    levels: int = 256,
    key: PRNGKeyArray | None = None,
) -> DenoisingLoss:
    """Loss of one example at one time.

    With `rules.variance` the variational bound trains the learned variance alone: x_0 is held still in it (Nichol and
    Dhariwal 2021, arXiv:2102.09672, section 3.1), and the denoiser runs once.

    Args:
        denoiser: in training mode.
        x0: example in [-1, 1].
        t: time.
        condition: label, or None.
        noise: standard normal.
        rules: weight and distance.
        sigma_data: deviation of the data.
        uncertainty: learned log-variance of the weight `uncertainty`.
        levels: number of grey levels of the data, of the bound.
        key: of dropout.

    Raises:
        ValueError: the weight is uncertainty without a log-variance, or there is one without that weight.
    """
    if (uncertainty is not None) != (rules.weight == "uncertainty"):
        raise ValueError(
            "uncertainty must be given with loss.weight uncertainty, and with no other: got loss.weight="
            f"{rules.weight} and {'none' if uncertainty is None else 'one'}"
        )
    x0 = widen(x0)
    level = denoiser.schedule(t)
    x = level.diffuse(x0, noise)
    if rules.variance:
        found = denoiser.variance(x, t, condition, key=key)  # pyright: ignore[reportAttributeAccessIssue]
        bound = variational_bound(denoiser.schedule, found, x0, x, t, levels=levels)
        mean = found.x0
    else:
        mean, bound = denoiser(x, t, condition, key=key), jnp.zeros(())
    loss = weighted_distance(mean - x0, level, rules, sigma_data)
    if uncertainty is not None:
        spread = uncertainty(level)
        loss = loss * jnp.exp(-spread) + spread
    return DenoisingLoss(loss + rules.variance * bound, jnp.mean(jnp.square(mean - x0)), bound)


def weighted_distance(
    error: Float[Array, "*shape"], level: Level, rules: DiffusionLoss, sigma_data: float = SIGMA_DATA
) -> Float[Array, ""]:
    """Mean distance of an error of x_0 at one level."""
    return jnp.mean(distance_of(rules)(jnp.sqrt(weight_of(rules, sigma_data)(level)) * error))


def dropped(
    label: Int[Array, ""], null_label: Int[Array, ""] | int, rate: float, *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """The label, or with probability `rate` the null label, which trains classifier-free guidance."""
    return jnp.where(jr.uniform(key) < rate, null_label, label)
