"""Fidelity, diversity and memorisation of samples by the features of two judges."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from eqxgen.metrics import FeatureRows, Features, weights_sha256
from eqxgen.metrics import fidelity as scores

from .._errors import UsageError
from ..config.evals import FIDELITY, JUDGES
from ..data import Dataset
from .base import Evaluator
from .examples import Examples, held_out_images, training_images
from .judge import Net, judge_of, looked_at, looked_at_by
from .stream import Function, Stream

_SIZES = 15  # of the extrapolation


class Judged(NamedTuple):
    """Images of a model that are judged; see `train.evaluators.classifier.classifier`.

    Attributes:
        dataset: the real images.
        paired: each is the reconstruction of its example's `image`.
        path: (space, sampling) -> function ((parts, epsilon), example) -> two images of latents that are epsilon apart
            on a path, with its `space`; None without. `UsageError` where the model has no such space.
    """

    dataset: Dataset
    draw: Function
    samples: Examples
    parts: Callable[[PyTree, Any], PyTree]
    paired: bool = False
    path: Callable[[str | None, str], Any] | None = None


def fidelity(
    dataset: Dataset,
    draw: Function,
    samples: Examples,
    parts: Callable[[PyTree, Any], PyTree] = lambda model, _: model,
    *,
    paired: bool = False,
    path: Callable[[str | None, str], Any] | None = None,
) -> Evaluator:
    """Scores of samples by the features of each judge against the held-out images: `fd_judge` with its bootstrap
    interval, `fd_judge_infinity`, `kid_judge`, precision, recall, density, coverage; `accuracy_judge`, how often it
    gives them their own class; against the training images: memorisation. Those of `judge_vit` are called after it.

    Samples are rounded to the grey levels of the data, as a file would have them, and drawn once for both judges.
    Features of all training images are kept on the host. The hashes of the judges are notes of the evaluator.

    Args:
        dataset: the real images.
        draw: see `train.evaluators.classifier.classifier`.
        samples: likewise.
        parts: likewise.
        paired: see `Judged`.
        path: likewise.
    """
    known: dict[str, _Known] = {}  # from the first evaluation on
    notes: dict[str, str] = {}

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        for name in JUDGES:
            if name not in known:
                known[name] = _Known.of(name, dataset, samples.size, stream)
                notes[f"{name}_sha256"] = known[name].features.sha256
            stream.say(f"features: {known[name].features}, accuracy {known[name].accuracy:.4g} on held-out images")
        models, into = zip(*((judge.model, FeatureRows(features=judge.features)) for judge in known.values()))
        made, numbers = Rounded(draw, dataset.levels), {}
        looks = looked_at_by(models, samples, into, stream, made, parts(model, frozen))
        for judge, (right, rows) in zip(known.values(), looks):
            found = scores(rows, judge.reference, judge.training)
            numbers |= {name: value for score in found for name, value in score.numbers().items()}
            numbers[judge.features.score("accuracy")] = right.result()
        return numbers

    lacks = "" if dataset.num_classes > 1 else "the images have one class"
    judged = Judged(dataset, draw, samples, parts, paired, path)
    return Evaluator(FIDELITY, run, lacks=lacks, notes=notes, judged=judged)


class _Known(NamedTuple):
    """A judge, and its features of real images."""

    model: Net
    accuracy: float
    features: Features
    reference: FeatureRows
    training: FeatureRows

    @classmethod
    def of(cls, name: str, dataset: Dataset, count: int, stream: Stream) -> "_Known":
        """`UsageError` where there are too few of `count` samples, or of real images."""
        judge = judge_of(dataset, stream, name)
        enough("--evals fidelity", judge.model.head.in_dim, count, len(dataset.test_labels))
        features = Features(name, weights_sha256(judge.model))
        real = [
            looked_at(judge.model, images, FeatureRows(features=features), stream)[1]
            for images in (held_out_images(dataset), training_images(dataset))
        ]
        return cls(judge.model, judge.accuracy, features, *real)


class Rounded(eqx.Module):
    """Images of a function, rounded to grey levels `0 ... levels - 1` and again in [-1, 1]."""

    draw: Function = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> Array:
        return self.whole(tree, example) * (2 / (self.levels - 1)) - 1

    def whole(self, tree: PyTree, example: dict[str, Array]) -> Array:
        """The grey levels as whole numbers of a float type."""
        image = self.draw(tree, example).astype(jnp.float32)
        return jnp.round((jnp.clip(image, -1, 1) + 1) * ((self.levels - 1) / 2))


def enough(flag: str, dim: int, samples: int, real: int | None = None, hint: str = "leave it out") -> None:
    """Raises `UsageError` where there are too few samples, or real images, for so many features."""
    if samples <= dim + _SIZES:
        raise UsageError(
            f"{flag} must have more samples than {dim} features and {_SIZES} sizes together: got {samples}; "
            f"give --eval-samples {dim + _SIZES + 1} or more (train.evaluate: --n), or leave it out"
        )
    if real is not None and real <= dim:
        raise UsageError(f"{flag} must have more real images than the {dim} features: got {real}; {hint}")
