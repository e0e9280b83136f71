"""Scores of the classes or the grades that a model gives texts."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.losses.tokens import cross_entropy
from eqxgen.metrics import Confusion, Mean, Pearson, Spearman

from ..config.evals import DEV, Evaluation
from .base import Evaluator
from .examples import Examples
from .stream import Stream


def scores(examples: Examples, classes: int, kind: Evaluation = DEV) -> Evaluator:
    """Scores of a part, without dropout, by names such as `eval_accuracy`.

    Of classes: `loss`, the cross-entropy in nats; `accuracy`; `f1`, of class 1 of two, otherwise the mean over the
    classes; `mcc`. Of grades: `loss`, the mean square of the error; `pearson` and `spearman`, 0 where the model gives
    all texts one grade, NaN where it gives no number.

    Args:
        examples: `ids`, `types`, `length` and `label`.
        classes: 1 of grades.
        kind: gives the prefix of the names.
    """
    prefix = kind.gives[0].removesuffix("loss")

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        parts = stream.map(_judged, eqx.nn.inference_mode(model), examples)
        found = _of_grades(parts, stream) if classes == 1 else _of_classes(parts, stream, classes)
        return {f"{prefix}{name}": value for name, value in found.items()}

    return Evaluator(kind, run)


def logits_of(model: Any, example: dict[str, Array], key: PRNGKeyArray | None = None) -> Float[Array, " classes"]:
    """Logits of a text, or its grade."""
    mask = jnp.arange(len(example["ids"])) < example["length"]
    return model(example["ids"], example["types"], mask=mask, key=key).astype(jnp.float32)


def _judged(model: Any, example: dict[str, Array]) -> tuple[Array, Array]:
    return logits_of(model, example), example["label"]


def _of_classes(parts: Any, stream: Stream, classes: int) -> dict[str, float]:
    confusion, loss = Confusion.of(classes), Mean()
    for logits, labels in parts:
        confusion = confusion.update(np.argmax(logits, axis=-1), labels)
        loss = loss.update(np.asarray(cross_entropy(jnp.asarray(logits), jnp.asarray(labels))))
    confusion, loss = stream.total(confusion, loss)
    f1 = float(confusion.f1()[1]) if classes == 2 else confusion.macro_f1()
    return {"loss": loss.result(), "accuracy": confusion.accuracy(), "f1": f1, "mcc": confusion.mcc()}


def _of_grades(parts: Any, stream: Stream) -> dict[str, float]:
    pearson, spearman, loss = Pearson(), Spearman(), Mean()
    for logits, labels in parts:
        guesses = logits[:, 0]
        loss = loss.update(np.square(guesses.astype(np.float64) - labels))
        if np.isfinite(guesses).all():
            pearson, spearman = pearson.update(guesses, labels), spearman.update(guesses, labels)
    pearson, spearman, loss = stream.total(pearson, spearman, loss)
    if not np.isfinite(loss.result()):
        return {"loss": loss.result(), "pearson": np.nan, "spearman": np.nan}
    found = {"loss": loss.result()}
    for name, metric in (("pearson", pearson), ("spearman", spearman)):
        try:
            found[name] = metric.result()
        except ValueError:  # a series of equal values
            found[name] = 0.0
    return found
