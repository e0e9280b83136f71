"""Distances of a denoised example, as functions of the error, element by element.

    l2            e²
    l1            |e|
    huber         e² / 2 where |e| < δ, else δ (|e| - δ / 2) (Huber 1964)
    pseudo_huber  √(e² + δ²) - δ (Song and Dhariwal 2024, arXiv:2310.14189, equation 7, for each element)

An error is multiplied by the root of the weight, so that with the weight SNR each is the published distance of the
noise; of l2 this is the weight times the distance.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.configs.diffusion import DiffusionLoss

Distance = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]


def huber(error: Float[Array, "*shape"], delta: float = 1.0) -> Float[Array, "*shape"]:
    """Quadratic up to delta, linear beyond."""
    size = jnp.abs(error)
    return jnp.where(size < delta, jnp.square(error) / 2, delta * (size - delta / 2))


def pseudo_huber(error: Float[Array, "*shape"], delta: float = 1.0) -> Float[Array, "*shape"]:
    """√(e² + δ²) - δ, computed without its cancellation at small errors."""
    square = jnp.square(error)
    return square / (jnp.sqrt(square + delta**2) + delta)


def distance_of(rules: DiffusionLoss) -> Distance:
    """The distance that a config names."""
    distances: dict[str, Distance] = {
        "l2": jnp.square,
        "l1": jnp.abs,
        "huber": lambda error: huber(error, rules.delta),
        "pseudo_huber": lambda error: pseudo_huber(error, rules.delta),
    }
    return distances[rules.distance]
