"""Losses of image tokenizers (van den Oord et al. 2017, arXiv:1711.00937; Yu et al. 2022, arXiv:2110.04627)."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.nn.quantize import Quantized, entropy_of


class TokenizerLosses(NamedTuple):
    """Losses of each image.

    Attributes:
        total: what is minimised.
        squared_error: mean over the image's values.
        distance: codebook and commitment terms, mean over the image's latents.
    """

    total: Float[Array, " batch"]
    squared_error: Float[Array, " batch"]
    distance: Float[Array, " batch"]


def squared_error(first: Float[Array, "batch *shape"], second: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Mean squared difference of each example, in float32."""
    difference = first.astype(jnp.float32) - second.astype(jnp.float32)
    return jnp.mean(difference**2, axis=tuple(range(1, first.ndim)))


def tokenizer_losses(
    images: Float[Array, "batch height width channels"],
    reconstructions: Float[Array, "batch height width channels"],
    quantized: Quantized,
    weight: Float[Array, " batch"],
    *,
    quantisation: float = 1.0,
    entropy: float = 0.1,
    total: Callable[[Array], Array] = lambda x: x,
) -> TokenizerLosses:
    """squared error + quantisation · distance + entropy · (H of each latent's assignment - H of the mean assignment).

    The entropy term makes each latent's assignment certain and all codes equally frequent.

    Args:
        images: in [-1, 1].
        quantized: of each image, batched by `jax.vmap`; latents are `(rows, columns)`.
        weight: what each image counts in the mean assignment.
        total: sum over the devices that share the batch, since the entropy of a mean is no mean of entropies.
    """
    error = squared_error(reconstructions, images)
    distance, certainty = (jnp.mean(x, axis=(1, 2)) for x in (quantized.distance, quantized.entropy))
    spread = entropy_of(total(weight @ quantized.assignment) / total(jnp.sum(weight)))
    return TokenizerLosses(error + quantisation * distance + entropy * (certainty - spread), error, distance)
