"""Reconstructions of a tokenizer: their error, and the use of its codes."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from eqxgen.metrics import PSNR, CodeCounts

from ..config.evals import RECONSTRUCTION
from .base import Evaluator
from .examples import Examples
from .stream import Stream


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


def reconstructed(tokenizer: Any, example: dict[str, Array]) -> Array:
    """An image through the tokenizer and back."""
    return tokenizer.decode(tokenizer.encode(example["image"]))


def compared(tokenizer: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    """An image, and its reconstruction."""
    return example["image"], reconstructed(tokenizer, example)


def _measured(tokenizer: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    ids = tokenizer.encode(example["image"])
    return jnp.mean((tokenizer.decode(ids).astype(jnp.float32) - example["image"]) ** 2), ids
