"""Reconstructions: the error of a tokenizer's and the use of its codes, or the error of a Gaussian of latents' and its
divergence.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from eqxgen.metrics import PSNR, CodeCounts, Mean

from ..config.evals import LATENTS, RECONSTRUCTION
from .base import Evaluator
from .examples import Examples
from .stream import Function, Stream


def reconstruction(codes: int, images: Examples) -> Evaluator:
    """`eval_loss`, the mean squared error per value; `psnr`, the mean over images in dB; `codebook_usage`; and
    `codebook_perplexity`.

    Args:
        codes: of the codebook.
        images: `image`, in [-1, 1].
    """

    def run(tokenizer: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        quality, counts = PSNR(), CodeCounts.of(codes)
        for errors, ids in stream.map(_measured, tokenizer, images):
            quality, counts = quality.update(errors), counts.update(ids)
        quality, counts = stream.total(quality, counts)
        return {
            "eval_loss": quality.error.result(),
            "psnr": quality.result(),
            "codebook_usage": counts.usage(),
            "codebook_perplexity": counts.perplexity(),
        }

    return Evaluator(RECONSTRUCTION, run)


def latent_reconstruction(images: Examples) -> Evaluator:
    """`eval_loss`, the mean squared error per value of images through the mean of their posteriors; `psnr`, the mean
    over images in dB; `eval_divergence` from the prior, in nats of an image.

    Args:
        images: `image`, in [-1, 1].
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        quality, divergence = PSNR(), Mean()
        for errors, found in stream.map(_latent_error, model, images):
            quality, divergence = quality.update(errors), divergence.update(found)
        quality, divergence = stream.total(quality, divergence)
        numbers = {"eval_loss": quality.error.result(), "psnr": quality.result()}
        return numbers | {"eval_divergence": divergence.result()}

    return Evaluator(LATENTS, run)


def reconstructed(tokenizer: Any, example: dict[str, Array]) -> Array:
    """An image through the tokenizer and back."""
    return tokenizer.decode(tokenizer.encode(example["image"]))


class Beside(eqx.Module):
    """An image, and its reconstruction by a function of a model and an example."""

    through: Function = eqx.field(static=True)

    def __call__(self, model: Any, example: dict[str, Array]) -> tuple[Array, Array]:
        return example["image"], self.through(model, example)


def through_mean(model: Any, example: dict[str, Array]) -> Array:
    """An image through the mean of its posterior and back."""
    return model(example["image"])[0]


def _latent_error(model: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    image, posterior = model(example["image"])
    return jnp.mean((image.astype(jnp.float32) - example["image"]) ** 2), posterior.divergence()


def _measured(tokenizer: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    ids = tokenizer.encode(example["image"])
    return jnp.mean((tokenizer.decode(ids).astype(jnp.float32) - example["image"]) ** 2), ids
