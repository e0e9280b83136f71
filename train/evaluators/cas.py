"""A classifier that is trained on samples and tested on real images."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..config.evals import TRAINED_ON_SAMPLES
from ..data import Dataset
from .base import Evaluator
from .examples import Examples
from .fidelity import Rounded
from .judge import accuracy_of, judge_of
from .stream import Function, Stream


def trained_on_samples(
    dataset: Dataset, draw: Function, samples: Examples, parts: Callable[[PyTree, Any], PyTree] = lambda model, _: model
) -> Evaluator:
    """Classification accuracy score of Ravuri & Vinyals 2019 (arXiv:1905.10887): `cas_accuracy`, the accuracy on
    held-out real images of a classifier that is trained on samples and their classes alone, and `cas_accuracy_of_real`,
    that of the same classifier trained on the real training images.

    The classifier is the judge's, where the paper has a ResNet-50. Its steps are those of as many training images, 300
    at least; samples are kept on the host as bytes.

    Args:
        dataset: the real images.
        draw: see `train.evaluators.classifier.classifier`.
        samples: likewise.
        parts: likewise.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        function = _Bytes(Rounded(draw, dataset.levels))
        images, labels = stream.gather(function, parts(model, frozen), samples)
        stream.say(f"training a classifier on {len(images):,} samples ...")
        made = dataclasses.replace(dataset, train_images=images, train_labels=labels.astype(np.int32))
        return {
            "cas_accuracy": accuracy_of(made, stream),
            "cas_accuracy_of_real": judge_of(dataset, stream).accuracy,
        }

    lacks = "" if dataset.num_classes > 1 else "the images have one class"
    return Evaluator(TRAINED_ON_SAMPLES, run, lacks=lacks)


class _Bytes(eqx.Module):
    made: Rounded = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        return self.made.whole(tree, example).astype(jnp.uint8), example["label"]
