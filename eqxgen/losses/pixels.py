"""Loss of masked patches of pixels."""

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from eqxgen._widen import widen

EPSILON = 1e-6


def masked_pixel_loss(
    pixels: Float[Array, "patches pixels"],
    image: Float[Array, "height width channels"],
    mask: Float[Array, " patches"],
    *,
    patch: int,
    normalised: bool = True,
) -> Float[Array, ""]:
    """Mean squared error of the masked patches (He et al. 2022, arXiv:2111.06377, section 4.1).

    Args:
        pixels: of each patch, row by row, channels last.
        image: the target.
        mask: 1 for a masked patch, else 0.
        patch: side of a patch.
        normalised: takes each patch of the target to mean 0 and variance 1; with the unbiased variance + 1e-6, as the
            paper's code.

    Raises:
        ValueError: the pixels are not those of the image's patches.
    """
    height, width, channels = image.shape
    wanted = (height // patch * (width // patch), patch**2 * channels)
    if pixels.shape != wanted or height % patch or width % patch:
        raise ValueError(f"pixels must be {wanted}, of image={image.shape}, patch={patch}: got shape {pixels.shape}")
    image = widen(image)
    target = rearrange(image, "(h p) (w q) c -> (h w) (p q c)", p=patch, q=patch)
    if normalised:
        centred = target - jnp.mean(target, axis=-1, keepdims=True)
        target = centred / jnp.sqrt(jnp.var(target, axis=-1, ddof=1, keepdims=True) + EPSILON)
    errors = jnp.mean((pixels.astype(target.dtype) - target) ** 2, axis=-1)
    return jnp.sum(errors * mask) / jnp.sum(mask)
