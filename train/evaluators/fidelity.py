"""Fidelity, diversity and memorisation of samples by the features of the judge."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from eqxgen.metrics import Features, weights_sha256
from eqxgen.metrics import fidelity as scores

from .._errors import UsageError
from ..config.evals import FIDELITY
from ..data import Dataset
from .base import Evaluator
from .classifier import features_of, judge_of
from .examples import Examples, held_out_images, training_images
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
    """Scores of samples by the judge's features against the held-out images: `fd_judge` with its bootstrap interval,
    `fd_judge_infinity`, `kid_judge`, precision, recall, density, coverage; against the training images: memorisation.

    Samples are rounded to the grey levels of the data, as a file would have them. Features of all training images are
    kept on the host. The hash of the judge is a note of the evaluator.

    Args:
        dataset: the real images.
        draw: see `train.evaluators.classifier.classifier`.
        samples: likewise.
        parts: likewise.
        paired: see `Judged`.
        path: likewise.
    """
    known: dict[str, Any] = {}  # the judge of the run and its features of real images, from the first evaluation on
    notes: dict[str, str] = {}

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        if not known:
            judge = judge_of(dataset, stream).model
            enough("--evals fidelity", judge.head.in_dim, samples.size, len(dataset.test_labels))
            features = Features("judge", weights_sha256(judge))
            kept = {"reference": held_out_images(dataset), "training": training_images(dataset)}
            real = {name: features_of(None, None, judge, images, features, stream) for name, images in kept.items()}
            known.update(judge=judge, features=features, **real)
            notes["judge_sha256"] = features.sha256
        judge, features = known["judge"], known["features"]
        stream.say(f"features: {features}")
        made = Rounded(draw, dataset.levels)
        rows = features_of(made, parts(model, frozen), judge, samples, features, stream)
        found = scores(rows, known["reference"], known["training"])
        return {name: value for score in found for name, value in score.numbers().items()}

    lacks = "" if dataset.num_classes > 1 else "the images have one class"
    judged = Judged(dataset, draw, samples, parts, paired, path)
    return Evaluator(FIDELITY, run, lacks=lacks, notes=notes, judged=judged)


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
