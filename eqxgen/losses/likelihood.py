"""Losses of an image under a distribution per pixel.

The absolute and the squared error are, up to a constant, those of a Laplace and of a Gaussian distribution of fixed
width.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen

EDGE = 0.1
"""ε of `to_open_interval`, as in DALL-E."""


def absolute_error(first: Float[Array, "batch *shape"], second: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Mean absolute difference of each example, in float32 at least."""
    return _means(jnp.abs(widen(first) - widen(second)))


def squared_error(first: Float[Array, "batch *shape"], second: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Mean squared difference of each example, in float32 at least."""
    return _means((widen(first) - widen(second)) ** 2)


def to_open_interval(image: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """An image in [-1, 1] taken to [ε, 1 - ε], where its logit is finite (Ramesh et al. 2021, arXiv:2102.12092,
    appendix A.3, equation 2).
    """
    return (1 - 2 * EDGE) * (image + 1) / 2 + EDGE


def from_location(location: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The image in [-1, 1] of the location of a logit-Laplace distribution; clipped there, as in DALL-E."""
    return jnp.clip(2 * (jax.nn.sigmoid(location) - EDGE) / (1 - 2 * EDGE) - 1, -1, 1)


def logit_laplace(
    images: Float[Array, "batch *shape"],
    location: Float[Array, "batch *shape"],
    log_scale: Float[Array, "batch *shape"],
) -> Float[Array, " batch"]:
    """Negative log-likelihood in nats, mean over the values of each example, of `to_open_interval(images)` under the
    logit-Laplace distribution (Ramesh et al. 2021, arXiv:2102.12092, appendix A.3, equation 3):

        log(2 b x (1 - x)) + |logit(x) - μ| / b

    Args:
        images: in [-1, 1].
        location: μ.
        log_scale: ln b.
    """
    x, location, log_scale = to_open_interval(widen(images)), widen(location), widen(log_scale)
    log_odds = jnp.log(x) - jnp.log1p(-x)
    volume = jnp.log(x) + jnp.log1p(-x) + math.log(2) + log_scale
    return _means(volume + jnp.abs(log_odds - location) * jnp.exp(-log_scale))


def _means(x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
