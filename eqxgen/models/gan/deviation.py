"""Minibatch deviation (Karras et al. 2018, arXiv:1710.10196, section 3), by which a discriminator sees how alike the
images of a batch are.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen

EPSILON = 1e-8


def with_deviation(
    x: Float[Array, "batch height width channels"], group: int, maps: int = 1
) -> Float[Array, "batch height width more_channels"]:
    """Features with the mean deviation of their group appended as further maps.

    A group is strided: of n groups, image i is with images i + n, i + 2 n, ... The deviation of each feature over the
    group is averaged over positions and over the channels of each of `maps` equal shares, in float32.

    Args:
        group: images of a group. A batch that is smaller, or that it does not divide, is one group.
        maps: number of maps; it divides the channels.

    Raises:
        ValueError: `maps` does not divide the channels.
    """
    batch, height, width, channels = x.shape
    if channels % maps:
        raise ValueError(f"maps must divide the channels: got maps={maps}, channels={channels}")
    size = group if group <= batch and batch % group == 0 else batch
    wide = widen(x).reshape(size, batch // size, height, width, maps, -1)
    variance = jnp.mean((wide - jnp.mean(wide, axis=0, keepdims=True)) ** 2, axis=0)
    found = jnp.mean(jnp.sqrt(variance + EPSILON), axis=(1, 2, 4))  # groups, maps
    found = jnp.tile(found, (size, 1))[:, None, None].astype(x.dtype)
    return jnp.concatenate([x, jnp.broadcast_to(found, (batch, height, width, maps))], axis=-1)
