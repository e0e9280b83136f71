"""Minibatch deviation (Karras et al. 2018, arXiv:1710.10196, section 3), by which a discriminator sees how alike the
images of a batch are.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.nn import _check

EPSILON = 1e-8


def with_deviation(
    x: Float[Array, "batch height width channels"], group: int, maps: int = 1, *, axes: Sequence[str] = ()
) -> Float[Array, "batch height width more_channels"]:
    """Features with the mean deviation of their group appended as further maps.

    A group is strided: of n groups, image i is with images i + n, i + 2 n, ... The deviation of each feature over the
    group is averaged over positions and over the channels of each of `maps` equal shares, in float32.

    Args:
        group: images of a group. A batch that is smaller, or that it does not divide, is one group.
        maps: number of maps; it divides the channels.
        axes: mesh axes over which the batch is split, inside `jax.shard_map`: the groups are those of the whole batch,
            where the original's are of each device's part.

    Raises:
        ValueError: `maps` does not divide the channels; a number is below 1, or there is no image.
    """
    _check.positive(group=group, maps=maps)
    _check.example(x, "images", "height", "width", "channels")
    own, height, width, channels = x.shape
    _check.positive(images=own)
    if channels % maps:
        raise ValueError(f"maps must divide the channels: got maps={maps}, channels={channels}")
    every = jax.lax.all_gather(x, tuple(axes), tiled=True) if axes else x
    batch = len(every)
    size = group if group <= batch and batch % group == 0 else batch
    wide = widen(every).reshape(size, batch // size, height, width, maps, -1)
    variance = jnp.mean((wide - jnp.mean(wide, axis=0, keepdims=True)) ** 2, axis=0)
    found = jnp.tile(jnp.mean(jnp.sqrt(variance + EPSILON), axis=(1, 2, 4)), (size, 1))  # images, maps
    if axes:
        found = jax.lax.dynamic_slice_in_dim(found, jax.lax.axis_index(tuple(axes)) * own, own)
    found = found[:, None, None].astype(x.dtype)
    return jnp.concatenate([x, jnp.broadcast_to(found, (own, height, width, maps))], axis=-1)
