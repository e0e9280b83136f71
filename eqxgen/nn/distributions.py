"""Distributions of latents and of pixels, each of one example: a draw, a log-density summed over all entries, an image.

Pixels are those of an image in [-1, 1]. Sums accumulate in float32 at least.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen

LOG_VARIANCE = (-30.0, 20.0)
"""Bounds of the logarithm of a variance that a net gives, those of latent diffusion's code."""
LOG_SCALE = (-7.0, 7.0)
"""Bounds of the logarithm of a scale of `LogitLaplace`."""
SQUEEZE = 0.1
"""Distance of `LogitLaplace`'s values from 0 and from 1 (Ramesh et al. 2021, arXiv:2102.12092, appendix A.3)."""


class DiagonalGaussian(NamedTuple):
    """A Gaussian with a diagonal covariance: a posterior of latents, or a likelihood of pixels."""

    mean: Float[Array, "*shape"]
    log_variance: Float[Array, "*shape"]

    @classmethod
    def of(cls, moments: Float[Array, "*leading doubled"]) -> "DiagonalGaussian":
        """Mean and logarithm of the variance from the two halves of the last axis, the latter within `LOG_VARIANCE`."""
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return cls(mean, jnp.clip(log_variance, *LOG_VARIANCE))

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """A draw."""
        return self.at(jr.normal(key, self.mean.shape, self.mean.dtype))

    def at(self, noise: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The draw of a given draw from the standard normal."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> Float[Array, ""]:
        """Kullback-Leibler divergence from the standard normal, in nats (Kingma and Welling 2014, arXiv:1312.6114,
        appendix B).
        """
        mean, log_variance = widen(self.mean), widen(self.log_variance)
        return 0.5 * jnp.sum(mean**2 + jnp.expm1(log_variance) - log_variance)

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Logarithm of the density, in nats."""
        mean, log_variance = widen(self.mean), widen(self.log_variance)
        squares = (widen(x) - mean) ** 2 * jnp.exp(-log_variance)
        return -0.5 * jnp.sum(squares + log_variance + math.log(2 * math.pi))

    def image(self) -> Float[Array, "*shape"]:
        """The mean; as a likelihood of pixels, an image that is not clipped to [-1, 1]."""
        return self.mean


class Bernoulli(NamedTuple):
    """Independent pixels of two values, -1 and 1, from the logits of 1.

    A grey image counts as the share of ones in many draws: its log-density is the expected one.
    """

    logits: Float[Array, "*shape"]

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Logarithm of the probability of an image in [-1, 1], in nats."""
        logits, ones = widen(self.logits), 0.5 * (widen(x) + 1.0)
        return jnp.sum(ones * logits - jax.nn.softplus(logits))

    def image(self) -> Float[Array, "*shape"]:
        """The expected image."""
        return jnp.tanh(0.5 * self.logits)


class LogitLaplace(NamedTuple):
    """The logit-Laplace distribution (Ramesh et al. 2021, arXiv:2102.12092, appendix A.3): the logit of a value has a
    Laplace distribution, so that a reconstruction stays in the range of an image.

    A pixel in [-1, 1] is the value 0.1 + 0.8 (pixel + 1) / 2; the density is that of values.
    """

    mean: Float[Array, "*shape"]
    log_scale: Float[Array, "*shape"]

    @classmethod
    def of(cls, moments: Float[Array, "*leading doubled"]) -> "LogitLaplace":
        """Mean and logarithm of the scale from the two halves of the last axis, the latter within `LOG_SCALE`."""
        mean, log_scale = jnp.split(moments, 2, axis=-1)
        return cls(mean, jnp.clip(log_scale, *LOG_SCALE))

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Logarithm of the density, in nats."""
        mean, log_scale = widen(self.mean), widen(self.log_scale)
        value = squeezed(widen(x))
        spread = jnp.abs(logit(value) - mean) * jnp.exp(-log_scale)
        return -jnp.sum(spread + log_scale + jnp.log(2 * value * (1 - value)))

    def image(self) -> Float[Array, "*shape"]:
        """The median, clipped to [-1, 1] as published."""
        value = (jax.nn.sigmoid(self.mean) - SQUEEZE) / (1 - 2 * SQUEEZE)
        return 2.0 * jnp.clip(value, 0.0, 1.0) - 1.0


def squeezed(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Pixels in [-1, 1] as values of `LogitLaplace`."""
    return SQUEEZE + (0.5 - SQUEEZE) * (x + 1.0)


def logit(p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(p / (1 - p))."""
    return jnp.log(p) - jnp.log1p(-p)
