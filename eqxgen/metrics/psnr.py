"""Peak signal-to-noise ratio."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def psnr(mean_squared_error: Float[Array, "*batch"] | float, peak: float = 2.0) -> Float[Array, "*batch"]:
    """10 log10(peak² / mse) in dB; `peak` is the range of the values, 2 for images in [-1, 1]."""
    return 10 * jnp.log10(peak**2 / jnp.maximum(jnp.asarray(mean_squared_error), 1e-12))
