"""Fine-tuning: a classifier of features that are trained on with it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..config.evals import FINE_TUNING
from ..data import batch_indices
from ..parallel.processes import from_first
from .base import Evaluator
from .examples import Examples
from .probe import Labelled, head_of
from .stream import Function, Stream
from .training import Trainer, smoothed, trained

BATCH, PASSES, LEAST, RATE, DECAY, SMOOTHING = 128, 5, 300, 3e-4, 0.05, 0.1


def fine_tuning(features: Function, train: Examples, test: Examples, classes: int, most: int) -> Evaluator:
    """`fine_tuned_accuracy`, the accuracy on held-out examples of the model whose features a linear head classifies,
    after all its weights were trained with the head's.

    The head begins as the linear probe's (Kumar et al. 2022, arXiv:2202.10054). Five passes over the examples, 300
    steps at least, of AdamW at 3e-4 without augmentation, and the average of the weights. The first process trains it,
    on one device: for a model that needs several there is `train.classify --from`.

    Args:
        features, train, test, classes, most: see `train.evaluators.probe.probe`.
    """
    chosen = np.linspace(0, train.size, min(train.size, most), endpoint=False).astype(int)
    fitted = Examples(len(chosen), lambda numbers: train.read(chosen[numbers]), train.batch)
    steps = max(LEAST, PASSES * fitted.size // BATCH)

    def logits(net: tuple[Any, Array, Array], example: dict[str, Array]) -> Array:
        model, weight, bias = net
        return features(model, example) @ weight + bias

    def loss(net: tuple[Any, Array, Array], batch: dict[str, Array], key: PRNGKeyArray) -> Array:
        return smoothed(jax.vmap(lambda example: logits(net, example))(batch), batch["label"], SMOOTHING)

    def correct(net: tuple[Any, Array, Array], example: dict[str, Array]) -> Array:
        return jnp.argmax(logits(net, example)) == example["label"]

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        known, labels = stream.gather(Labelled(features), model, fitted)
        weight, bias = from_first(lambda: [array.tolist() for array in head_of(known, labels, classes)])
        stream.say(f"fine-tuning: {steps} steps of {BATCH} ...")
        batch = lambda number: fitted.read(batch_indices(0, number, BATCH, fitted.size))
        net = model, jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)
        trainer = Trainer(net, loss, batch, steps, rate=RATE, weight_decay=DECAY, seed=1)
        net = trained(trainer, stream, "fine-tuning")
        return {"fine_tuned_accuracy": float(np.mean(stream.gather(correct, net, test)))}

    return Evaluator(FINE_TUNING, run, lacks="" if classes > 1 else "the images have one class")
