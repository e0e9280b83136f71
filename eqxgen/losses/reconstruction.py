"""Losses of image tokenizers (van den Oord et al. 2017, arXiv:1711.00937; Yu et al. 2022, arXiv:2110.04627)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.losses.likelihood import squared_error as squared_error
from eqxgen.nn.quantize import Quantized, entropy_of


class Assigned(NamedTuple):
    """Soft assignments of a batch, or of a part of one, as sums: parts are added up over micro-batches and devices.

    Attributes:
        sums: of the images' mean assignments, each times its weight; of a residual quantiser one row for each stage.
        weight: number of images.
    """

    sums: Float[Array, "*stages codes"]
    weight: Float[Array, ""]

    @classmethod
    def of(cls, quantized: Quantized, weight: Float[Array, " batch"]) -> "Assigned":
        """The sums of some images, without a gradient.

        Args:
            quantized: of each image, batched by `jax.vmap`.
            weight: 1, or 0 for padding.
        """
        assignment = jax.lax.stop_gradient(quantized.assignment)
        return cls(jnp.tensordot(weight, assignment, 1), jnp.sum(weight))


class TokenizerLosses(NamedTuple):
    """Losses of each image.

    Attributes:
        total: what is minimised.
        distance: codebook and commitment terms, mean over the image's latents.
    """

    total: Float[Array, " batch"]
    distance: Float[Array, " batch"]


def tokenizer_losses(
    error: Float[Array, " batch"],
    quantized: Quantized,
    whole: Assigned,
    *,
    quantisation: float = 1.0,
    entropy: float = 0.1,
) -> TokenizerLosses:
    """error + quantisation · distance + entropy · `entropy_penalty`.

    Args:
        error: of each image's reconstruction.
        quantized: of each image, batched by `jax.vmap`; a mean over all latents of an image.
        whole: assignments of the whole batch.
    """
    distance = _means(quantized.distance)
    penalty = entropy * entropy_penalty(quantized, whole) if entropy else 0.0
    return TokenizerLosses(error + quantisation * distance + penalty, distance)


def entropy_penalty(quantized: Quantized, whole: Assigned) -> Float[Array, " batch"]:
    """H of each latent's assignment - H of the mean assignment of the whole batch, mean over stages: least where each
    latent is certain of its code and all codes are equally frequent.

    The entropy of a mean is no mean of entropies. Around the mean of the whole batch it is linear in the parts to first
    order, so that the gradients of micro-batches and devices add up to that of the whole.
    """
    mean = jax.lax.stop_gradient(whole.sums / whole.weight)
    stages = mean.reshape(-1, mean.shape[-1])
    height, slope = jax.vmap(jax.value_and_grad(entropy_of))(stages)
    own = quantized.assignment.reshape(len(quantized.assignment), *stages.shape)
    part = jnp.mean(jnp.sum((own - jax.lax.stop_gradient(own)) * slope[None], axis=-1), axis=-1)
    return _means(quantized.entropy) - (jnp.mean(height) + part)


def _means(x: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
