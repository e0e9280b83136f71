"""Bounds of the likelihood of models with latents (Kingma and Welling 2014, arXiv:1312.6114; Burda et al. 2016,
arXiv:1509.00519). All are of one example, in nats summed over its pixels; the mean over a batch is the loss.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn.distributions import DiagonalGaussian
from eqxgen.protocols import LatentModel


class NegativeELBO(NamedTuple):
    """The negative evidence lower bound of one example and its two terms.

    Attributes:
        total: reconstruction + beta · divergence.
        reconstruction: -log p(example | a draw of its latents).
        divergence: Kullback-Leibler divergence of the posterior from the prior.
    """

    total: Float[Array, ""]
    reconstruction: Float[Array, ""]
    divergence: Float[Array, ""]


def negative_elbo(
    model: LatentModel, example: Float[Array, "*shape"], *, beta: float = 1.0, key: PRNGKeyArray
) -> NegativeELBO:
    """-E log p(example | latents) + beta · KL, the expectation by one draw and the divergence in closed form.

    Args:
        beta: weight of the divergence (Higgins et al. 2017); with 1 the total is a bound of -log p(example).
        key: of the draw.

    Raises:
        ValueError: beta is below 0.
    """
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be at least 0 and finite: got {beta}")
    posterior = model.encode(example)
    reconstruction = -model.log_likelihood(example, posterior.sample(key=key))
    divergence = posterior.divergence()
    return NegativeELBO(reconstruction + beta * divergence, reconstruction, divergence)


def importance_weighted_nll(
    model: LatentModel, example: Float[Array, "*shape"], samples: int, *, chunk: int = 50, key: PRNGKeyArray
) -> Float[Array, ""]:
    """-log (1/k Σ p(example, z_i) / q(z_i | example)) of k draws of the posterior (Burda et al. 2016, equation 8): in
    expectation an upper bound of -log p(example), tighter with each draw; with one, that of the ELBO.

    The draws go through the decoder `chunk` at a time, in memory and in the backward pass alike; draw i depends on the
    key and i alone.

    Args:
        samples: k.
        chunk: draws at a time.
        key: of the draws.

    Raises:
        ValueError: samples or chunk is below 1.
    """
    for name, value in (("samples", samples), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    chunk = min(chunk, samples)
    posterior = model.encode(example)
    lowest = jnp.finfo(jnp.promote_types(posterior.mean.dtype, jnp.float32)).min

    def weights(numbers: Array) -> Array:
        found = jax.vmap(lambda i: _log_weight(model, example, posterior, jr.fold_in(key, i)))(numbers)
        return jnp.where(numbers < samples, found, lowest)

    def step(so_far: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        return merged(so_far, running(weights(start + jnp.arange(chunk)))), None

    first = running(weights(jnp.arange(chunk)))
    starts = jnp.arange(chunk, samples, chunk)
    # A device's part of a batch varies over the mesh, so that the carry begins with a value computed from it.
    (peak, total), _ = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), first, starts)
    return -(peak + jnp.log(total) - jnp.log(jnp.asarray(samples, total.dtype)))


def running(x: Float[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Peak of x, held still, and the sum of exp(x - peak): the logarithm of a sum of exponentials is peak + log sum."""
    peak = jax.lax.stop_gradient(jnp.max(x))
    return peak, jnp.sum(jnp.exp(x - peak))


def merged(
    first: tuple[Float[Array, ""], Float[Array, ""]], second: tuple[Float[Array, ""], Float[Array, ""]]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`running` of two parts together."""
    peak = jnp.maximum(first[0], second[0])
    return peak, first[1] * jnp.exp(first[0] - peak) + second[1] * jnp.exp(second[0] - peak)


def _log_weight(model: Any, example: Array, posterior: DiagonalGaussian, key: PRNGKeyArray) -> Array:
    """log p(example | z) + log p(z) - log q(z), the last two from the noise that z is made of."""
    noise = jr.normal(key, posterior.mean.shape, posterior.mean.dtype)
    latents = posterior.at(noise)
    wide = jnp.promote_types(latents.dtype, jnp.float32)
    squares = noise.astype(wide) ** 2 - latents.astype(wide) ** 2 + posterior.log_variance.astype(wide)
    return model.log_likelihood(example, latents) + 0.5 * jnp.sum(squares)
