"""Loss and accuracy of a classifier on held-out images."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, PyTree

from eqxgen.losses.tokens import cross_entropy
from eqxgen.metrics import Accuracy, Mean

from ..config.evals import LABELS
from .base import Evaluator
from .examples import Examples
from .stream import Stream


def labels(examples: Examples) -> Evaluator:
    """`eval_loss`, the cross-entropy in nats without label smoothing, and `eval_accuracy`.

    Args:
        examples: `image`, in [-1, 1], and `label`.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        accuracy, mean = Accuracy(), Mean()
        for losses, guesses, label in stream.map(_judged, model, examples):
            accuracy, mean = accuracy.update(np.argmax(guesses, axis=-1), label), mean.update(losses)
        accuracy, mean = stream.total(accuracy, mean)
        return {"eval_loss": mean.result(), "eval_accuracy": accuracy.result()}

    return Evaluator(LABELS, run)


def logits_of(model: Any, example: dict[str, Array]) -> Float[Array, " classes"]:
    """Logits of one example."""
    return model(example["image"])


def _judged(model: Any, example: dict[str, Array]) -> tuple[Array, Array, Array]:
    logits = logits_of(model, example)
    return cross_entropy(logits, example["label"]), logits, example["label"]
