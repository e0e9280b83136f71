"""Positive semi-definite matrices in few bits: the entries beside the diagonal as integers, the diagonal in float32.

An entry beside the diagonal is at most √(aᵢᵢ aⱼⱼ): it is stored as its ratio to that, divided by the largest such ratio
of its matrix, in int8 or int16. The stored matrix is symmetric, and its error in (i, j) is below one step of the grid,
scale √(aᵢᵢ aⱼⱼ) / levels; half of that where it is rounded to the nearest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Quantised(NamedTuple):
    """A stack of matrices: integers beside the diagonal, the diagonal, and the largest ratio of each matrix."""

    off: Int[Array, "matrices side side"]
    diagonal: Float[Array, "matrices side"]
    scale: Float[Array, " matrices"]


Stored = Array | Quantised
"""A stack of matrices, whole or quantised."""


def levels(dtype: jax.typing.DTypeLike) -> int:
    """Steps of the grid from 0 to its end: 127 or 32,767."""
    return int(jnp.iinfo(dtype).max)


def quantised(
    matrices: Float[Array, "matrices side side"], dtype: jax.typing.DTypeLike, key: PRNGKeyArray | None = None
) -> Quantised:
    """The matrices in int8 or int16.

    Args:
        key: rounds up or down at random, so that the mean is the number itself: running averages move by less than a
            step of the grid, and would stay where they are if rounded to the nearest. None: to the nearest.
    """
    side, top = matrices.shape[-1], levels(dtype)
    diagonal = jnp.maximum(jnp.diagonal(matrices, axis1=-2, axis2=-1), 0)
    ratio = jnp.where(jnp.eye(side, dtype=bool)[None], 0, _divided(matrices, _sizes(diagonal)))
    scale = jnp.minimum(jnp.max(jnp.abs(ratio), axis=(-2, -1)), 1)
    grid = _divided(ratio, scale[:, None, None]) * top
    if key is None:
        whole = jnp.round(grid)
    else:
        drawn = jr.uniform(key, grid.shape, grid.dtype)
        drawn = jnp.triu(drawn, 1) + jnp.triu(drawn, 1).mT  # symmetric, as the matrix is
        whole = jnp.floor(grid + drawn)
    return Quantised(jnp.clip(whole, -top, top).astype(dtype), diagonal, scale)


def dequantised(stored: Stored) -> Float[Array, "matrices side side"]:
    """The matrices as they are stored."""
    if not isinstance(stored, Quantised):
        return stored
    side = stored.off.shape[-1]
    step = (stored.scale / levels(stored.off.dtype))[:, None, None]
    off = stored.off.astype(stored.diagonal.dtype) * step * _sizes(stored.diagonal)
    return jnp.where(jnp.eye(side, dtype=bool)[None], stored.diagonal[..., None], off)


def shrunk(stored: Stored, decay: float) -> Float[Array, "matrices side side"]:
    """The matrices as they are stored, of a running average of this decay, with as much added to the diagonal as keeps
    them positive: rounding adds a random symmetric matrix to the ratios, whose largest eigenvalue is about √side times
    the standard deviation of twice an entry, step √(1 / (1 - decay²)).
    """
    whole = dequantised(stored)
    if not isinstance(stored, Quantised):
        return whole
    side = whole.shape[-1]
    noise = stored.scale / levels(stored.off.dtype) * (side / (1 - decay**2)) ** 0.5
    return whole + jnp.where(jnp.eye(side, dtype=bool)[None], (noise[:, None] * stored.diagonal)[..., None], 0)


def _sizes(diagonal: Array) -> Array:
    """√(aᵢᵢ aⱼⱼ), from roots that neither overflow nor vanish."""
    root = jnp.sqrt(diagonal)
    return root[..., :, None] * root[..., None, :]


def _divided(x: Array, y: Array) -> Array:
    """x / y, and 0 where y is."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)
