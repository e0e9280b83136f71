"""Precision in which losses, statistics and steps of solvers are computed."""

import jax.numpy as jnp
from jaxtyping import Array


def widen(x: Array) -> Array:
    """The array in float32 at least; float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
