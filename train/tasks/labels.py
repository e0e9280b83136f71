"""Recipes of image classifiers: evaluation, pictures by predicted class."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._errors import UsageError, UserError
from ..engine.recipes import Finished
from . import images
from .sampling import ImageSample, at_most

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset
    from ..evaluators.base import Evaluator
    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream

ROW = 8
"""Images of each class in a picture."""
SHOWN = 64
"""Held-out images for each class, among which those of a picture are found."""


def _evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    from ..evaluators.examples import held_out_images
    from ..evaluators.labels import labels

    return (labels(held_out_images(dataset)),)


def by_class(examples: "Examples", guesses: Any, classes: Sequence[int], row: int = ROW) -> Any:
    """Images in [-1, 1], a row for each class of those that the model gives it; what a row lacks is black.

    Args:
        guesses: the model's class of each example.
        row: images of each class.
    """
    import numpy as np

    pictures = examples.read(np.arange(examples.size))["image"]
    rows = []
    for kind in classes:
        found = pictures[guesses == kind][:row]
        rows.append(np.concatenate([found, -np.ones((row - len(found), *found.shape[1:]), found.dtype)]))
    return np.concatenate(rows)


def guessed(model: Any, examples: "Examples", stream: "Stream") -> Any:
    """Class that the model gives each example; -1 where its logits are NaN."""
    import numpy as np

    from ..evaluators.labels import logits_of

    logits = stream.gather(logits_of, model, examples)
    return np.where(np.isnan(logits).any(axis=-1), -1, np.argmax(logits, axis=-1)).astype(np.int32)


def draw(run: Finished, asked: ImageSample) -> int:
    """Held-out images by predicted class, which is the label of single images."""
    import numpy as np

    from ..data import load
    from ..evaluators.examples import held_out_images
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    classes = images.classes_of(asked, run.facts.classes)
    stream, held_out = Stream(make_mesh(asked.mesh)), held_out_images(load(run.config.data))
    if asked.as_grid:
        for name in ("n", "columns"):
            if (value := getattr(asked, name)) is not None:
                raise UsageError(f"--{name} {value}: a grid of a classifier has a row for each class: give --per-class")
        held_out = held_out.first(SHOWN * run.facts.classes)
    labels = guessed(run.model(stream.mesh), held_out, stream)
    if (labels < 0).any():
        raise UserError(f"--run {asked.run}: the model's logits are not numbers: its weights are damaged")
    if asked.as_grid:
        row = asked.per_class or ROW
        found = by_class(held_out, labels, classes.tolist(), row)
        return dataclasses.replace(asked, columns=row).save([found], np.zeros(len(found), np.int32))
    rows = images.rows_of(asked, labels, run.facts.classes)
    at_most("--n", asked.n, len(rows), "held-out images of the classes")
    rows = rows[: asked.count(len(classes))]
    parts = np.split(rows, range(held_out.batch, len(rows), held_out.batch))
    return asked.save((held_out.read(part)["image"] for part in parts), labels[rows])


def _drawn(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
    from ..evaluators.examples import held_out_images

    shown = held_out_images(dataset).first(SHOWN * dataset.num_classes)
    return by_class(shown, guessed(parts[0], shown, stream), range(dataset.num_classes)), ROW


labels_recipe = functools.partial(
    images.image_recipe,
    drawn=_drawn,
    evaluators=_evaluators,
    draw=draw,
)
"""A recipe of classifiers: see `image_recipe`. The released model maps an image in [-1, 1] to logits."""
