"""Fine-tuning: a classifier of features that are trained on with it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..config.evals import FINE_TUNING
from ..data import batch_indices
from ..parallel.processes import from_first, on_host
from .base import Evaluator
from .examples import Examples
from .probe import Labelled, regression, standardised
from .stream import Function, Stream
from .training import Trainer, smoothed, trained

BATCH, PASSES, LEAST, RATE, DECAY, SMOOTHING = 128, 5, 300, 3e-4, 0.05, 0.1


def fine_tuning(features: Function, train: Examples, test: Examples, classes: int, most: int) -> Evaluator:
    """`fine_tuned_accuracy`, the accuracy on held-out examples of the model whose features a linear head classifies,
    after all its weights were trained with the head's.

    The head begins as the linear probe's (Kumar et al. 2022, arXiv:2202.10054), of features with mean 0 and deviation 1
    over each batch, in the end over the training examples. Five passes over these, 300 steps at least, of AdamW at 3e-4
    without augmentation, and the average of the weights. The first process trains it, on one device: for a model that
    needs several there is `train.classify --from`.

    Args:
        features, train, test, classes, most: see `train.evaluators.probe.probe`.
    """
    chosen = np.linspace(0, train.size, min(train.size, most), endpoint=False).astype(int)
    fitted = Examples(len(chosen), lambda numbers: train.read(chosen[numbers]), train.batch)
    steps = max(LEAST, PASSES * fitted.size // BATCH)

    def loss(net: tuple[Any, Array, Array], batch: dict[str, Array], key: PRNGKeyArray) -> Array:
        model, weight, bias = net
        found = standardised(jax.vmap(lambda example: features(model, example))(batch))
        return smoothed(found @ weight + bias[None], batch["label"], SMOOTHING)

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        known, labels = stream.gather(Labelled(features), model, fitted)
        head = from_first(lambda: [array.tolist() for array in regression(standardised(known), labels, classes)])
        stream.say(f"fine-tuning: {steps} steps of {BATCH} ...")
        batch = lambda number: fitted.read(batch_indices(0, number, BATCH, fitted.size))
        whole = jax.tree.map(lambda x: jnp.asarray(on_host(x)) if eqx.is_array(x) else x, model)
        net = whole, *(jnp.asarray(values, jnp.float32) for values in head)
        trainer = Trainer(net, loss, batch, steps, rate=RATE, weight_decay=DECAY, seed=1)
        tuned, weight, bias = trained(trainer, stream, "fine-tuning")
        (known, _), (held, right) = (stream.gather(Labelled(features), tuned, each) for each in (fitted, test))
        guesses = np.argmax(standardised(held, known) @ np.asarray(weight) + np.asarray(bias), axis=1)
        return {"fine_tuned_accuracy": float(np.mean(guesses == right))}

    return Evaluator(FINE_TUNING, run, lacks="" if classes > 1 else "the images have one class")
