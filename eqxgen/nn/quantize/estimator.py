"""Gradient estimators for the choice of a code, which has no gradient of its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Estimator = Callable[[Array, Array], Array]
"""(vectors, their codes) -> the codes, with a gradient to the vectors."""


def straight_through(
    z: Float[Array, "*leading dim"], codes: Float[Array, "*leading dim"]
) -> Float[Array, "*leading dim"]:
    """The gradient of the codes is that of the vectors (van den Oord et al. 2017, arXiv:1711.00937, section 3.2)."""
    return z + jax.lax.stop_gradient(codes - z)


def rotate(z: Float[Array, "*leading dim"], codes: Float[Array, "*leading dim"]) -> Float[Array, "*leading dim"]:
    """The gradient is rotated and scaled by the map from the vector to its code (Fifty et al. 2024, arXiv:2410.06424,
    section 4.2).

    With `u` and `q` the directions of the vector and its code, and `w` that of `u + q`, the rotation is `1 - 2 w wᵀ + 2
    q uᵀ`. The returned vectors equal the codes exactly.
    """
    wide, target = z.astype(jnp.float32), codes.astype(jnp.float32)
    u, q, stretch = jax.lax.stop_gradient((_unit(wide), _unit(target), _norm(target) / _norm(wide)))
    w = _unit(u + q)
    dot = lambda a, b: jnp.sum(a * b, axis=-1, keepdims=True)
    turned = stretch * (wide - 2 * w * dot(w, wide) + 2 * q * dot(u, wide))
    return (turned + jax.lax.stop_gradient(target - turned)).astype(z.dtype)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))


def _unit(x: Array) -> Array:
    return x / _norm(x)
