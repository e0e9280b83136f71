"""Recipes of image classifiers: evaluation, pictures by predicted class."""

import functools
from typing import TYPE_CHECKING, Any

from ..engine.recipes import Finished
from . import images
from .sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset
    from ..evaluators.base import Evaluator
    from ..evaluators.stream import Stream

ROW = 8
"""Images of each class in a picture."""


def _evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    from ..evaluators.examples import held_out_images
    from ..evaluators.labels import labels

    return (labels(held_out_images(dataset)),)


def by_class(model: Any, dataset: "Dataset", stream: "Stream", label: int | None = None) -> Any:
    """Held-out images in [-1, 1], a row of `ROW` for each class that the model gives them; what a row lacks is black.

    Args:
        label: the only class; by default each.
    """
    import numpy as np

    from ..evaluators.examples import held_out_images
    from ..evaluators.labels import logits_of

    held_out = held_out_images(dataset).first(64 * dataset.num_classes)
    guesses = np.argmax(stream.gather(logits_of, model, held_out), axis=-1)
    pictures = held_out.read(np.arange(held_out.size))["image"]
    rows = []
    for kind in range(dataset.num_classes) if label is None else [label]:
        row = pictures[guesses == kind][:ROW]
        rows.append(np.concatenate([row, -np.ones((ROW - len(row), *row.shape[1:]), row.dtype)]))
    return np.concatenate(rows)


def _draw(run: Finished, asked: ImageSample) -> int:
    """Held-out images by predicted class."""
    from ..data import load
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    asked.check_label(run.facts.classes)
    mesh = make_mesh(asked.mesh)
    return asked.save(by_class(run.model(mesh), load(run.config.data), Stream(mesh), asked.label))


labels_recipe = functools.partial(
    images.image_recipe,
    drawn=lambda model, dataset, stream: (by_class(model, dataset, stream), ROW),
    evaluators=_evaluators,
    draw=_draw,
)
"""A recipe of classifiers: see `image_recipe`. The released model maps an image in [-1, 1] to logits."""
