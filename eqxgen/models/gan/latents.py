"""Paths between latents."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def between(
    first: Float[Array, " latent"], second: Float[Array, " latent"], share: Float[Array, ""]
) -> Float[Array, " latent"]:
    """Spherical interpolation from the first latent (share 0) to the second (share 1), which keeps the length that
    normal latents have (Shoemake 1985). Latents of one direction are interpolated linearly.
    """
    cos = jnp.sum(first * second) / (jnp.linalg.norm(first) * jnp.linalg.norm(second))
    angle = jnp.arccos(jnp.clip(cos, -1, 1))
    sine = jnp.sin(angle)
    safe = jnp.where(sine > 1e-4, sine, 1)
    curved = (jnp.sin((1 - share) * angle) * first + jnp.sin(share * angle) * second) / safe
    return jnp.where(sine > 1e-4, curved, (1 - share) * first + share * second)
