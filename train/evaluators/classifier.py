"""Judgement of samples by a classifier of the real images."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from eqxgen.metrics import Moments, frechet_distance

from ..config.evals import CLASSIFIER
from ..data import Dataset
from .base import Evaluator
from .examples import Examples, held_out_images
from .judge import Judge, judge_of, looked_at
from .stream import Function, Stream


def classifier(
    dataset: Dataset, draw: Function, samples: Examples, parts: Callable[[PyTree, Any], PyTree] = lambda model, _: model
) -> Evaluator:
    """Judgement of samples by a classifier of the real images.

    `sample_accuracy`: share of the samples that it gives their own class. `sample_frechet`: Fréchet distance between
    its features of the samples and of the held-out real images; it is not FID, which has the features of Inception.
    `classifier_accuracy`: its accuracy on the held-out real images.

    Args:
        dataset: the real images.
        draw: (parts, example) -> image in [-1, 1].
        samples: the samples' `label`, and the other arrays that `draw` needs.
        parts: (released model, frozen parts) -> the models and keys that `draw` needs; by default the model.
    """
    known: dict[str, tuple[Judge, Moments]] = {}  # the judge of the run, from its first evaluation on

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        if "judge" not in known:
            judge = judge_of(dataset, stream)
            known["judge"] = judge, looked_at(judge.model, held_out_images(dataset), Moments(), stream)[1]
        judge, real = known["judge"]
        accuracy, features = looked_at(judge.model, samples, Moments(), stream, draw, parts(model, frozen))
        return {
            "sample_accuracy": accuracy.result(),
            "sample_frechet": frechet_distance(features, real, warn=stream.say),
            "classifier_accuracy": judge.accuracy,
            "judge_seconds": judge.seconds,
        }

    return Evaluator(CLASSIFIER, run, lacks="" if dataset.num_classes > 1 else "the images have one class")
