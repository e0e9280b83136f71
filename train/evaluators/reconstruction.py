"""Reconstructions of a tokenizer: their error, and the use of its codes."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from eqxgen.metrics import PSNR, CodeCounts

from ..config.evals import RECONSTRUCTION
from .base import Evaluator
from .stream import Examples, Stream


def reconstruction(codes: int, images: Examples) -> Evaluator:
    """`eval_loss`, the mean squared error per value; `psnr`, the mean over images in dB; `codebook_usage`; and
    `codebook_perplexity`.

    Args:
        codes: of the codebook.
        images: `image`, in [-1, 1].
    """

    def run(tokenizer: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        quality, counts = PSNR(), CodeCounts.of(codes)
        for errors, ids in stream.map(_compared, tokenizer, images):
            quality, counts = quality.update(errors), counts.update(ids)
        quality, counts = stream.total(quality, counts)
        return {
            "eval_loss": quality.error.result(),
            "psnr": quality.result(),
            "codebook_usage": counts.usage(),
            "codebook_perplexity": counts.perplexity(),
        }

    return Evaluator(RECONSTRUCTION, run)


def reconstructed(tokenizer: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    """An image through the tokenizer and back, and its ids."""
    ids = tokenizer.encode(example["image"])
    return tokenizer.decode(ids), ids


def _compared(tokenizer: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    fake, ids = reconstructed(tokenizer, example)
    return jnp.mean((fake.astype(jnp.float32) - example["image"]) ** 2), ids
