"""Masked words of held-out texts."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from eqxgen.losses.tokens import cross_entropy
from eqxgen.metrics import CrossEntropy, Mean

from ..config.evals import MASKED
from .base import Evaluator
from .examples import Examples
from .stream import Stream


def masked(examples: Examples) -> Evaluator:
    """`masked_loss`, the mean cross-entropy in nats of the chosen tokens of held-out texts, without dropout and with
    the same masks at every call; `masked_perplexity`; `masked_accuracy`, the share of them that are guessed.

    Args:
        examples: arrays of `train.data.tables.rows.Masking.masked`.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        entropy, hits = CrossEntropy(), Mean()
        for losses, found, chosen in stream.map(_judged, eqx.nn.inference_mode(model), examples):
            entropy, hits = entropy.update(losses, chosen), hits.update(found, chosen)
        entropy, hits = stream.total(entropy, hits)
        return {
            "masked_loss": entropy.result(),
            "masked_accuracy": hits.result(),
            "masked_perplexity": entropy.perplexity(),
        }

    return Evaluator(MASKED, run)


def gap_losses(
    model: Any, example: dict[str, Array], key: PRNGKeyArray | None = None
) -> tuple[Float[Array, " places"], Float[Array, " places"]]:
    """Cross-entropy in nats at each chosen place of a row, and 1 where the likeliest token is the right one."""
    logits = logits_of(model, example, key)
    targets = example["targets"]
    return cross_entropy(logits, targets), (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)


def guesses_of(model: Any, example: dict[str, Array]) -> Int[Array, " places"]:
    """Likeliest token at each chosen place of a row."""
    return jnp.argmax(logits_of(eqx.nn.inference_mode(model), example), axis=-1)


def logits_of(model: Any, example: dict[str, Array], key: PRNGKeyArray | None = None) -> Float[Array, "places vocab"]:
    """Logits at the chosen places of a row."""
    mask = jnp.arange(len(example["ids"])) < example["length"]
    return model(example["ids"], example["types"], mask=mask, places=example["places"], key=key)


def _judged(model: Any, example: dict[str, Array]) -> tuple[Array, Array, Array]:
    return *gap_losses(model, example), example["chosen"]
