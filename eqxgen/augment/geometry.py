"""Geometry of images: homogeneous maps of (x, y, 1) in pixels, and images moved by them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def warped(
    image: Float[Array, "height width channels"], forward: Float[Array, "3 3"]
) -> Float[Array, "height width channels"]:
    """The image moved by a homogeneous map of (x, y, 1) about its centre, in pixels; mirrored at its borders."""
    height, width, _ = image.shape
    middle = jnp.asarray([(width - 1) / 2, (height - 1) / 2])
    x, y = jnp.meshgrid(jnp.arange(width) - middle[0], jnp.arange(height) - middle[1])
    inverse = jnp.linalg.inv(forward)
    source = jnp.einsum("ij,jhw->ihw", inverse[:2], jnp.stack([x, y, jnp.ones_like(x)])) + middle[:, None, None]
    # Whole positions stay whole, so that an image that only flips keeps its pixels.
    near = jnp.round(source)
    source = jnp.where(jnp.abs(source - near) < 1e-4, near, source)
    one = lambda channel: jax.scipy.ndimage.map_coordinates(channel, [source[1], source[0]], order=1, mode="mirror")
    return jax.vmap(one, -1, -1)(image)


def scaling(x: Float[Array, ""], y: Float[Array, ""]) -> Float[Array, "3 3"]:
    """x and y scaled."""
    return jnp.diag(jnp.stack([x, y, jnp.ones_like(x)]))


def rotation(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Rotation by an angle in radians, from x towards y."""
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one]).reshape(3, 3)


def translation(x: Float[Array, ""], y: Float[Array, ""]) -> Float[Array, "3 3"]:
    """A move by x and y."""
    zero, one = jnp.zeros_like(x), jnp.ones_like(x)
    return jnp.stack([one, zero, x, zero, one, y, zero, zero, one]).reshape(3, 3)
