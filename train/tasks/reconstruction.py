"""Recipes of image tokenizers: pictures of reconstructions, evaluation."""

import functools
from typing import TYPE_CHECKING, Any

from ..engine.recipes import Finished
from . import images
from .sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset
    from ..evaluators.base import Evaluator
    from ..evaluators.stream import Stream


def _evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    from ..evaluators.classifier import classifier
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import reconstructed, reconstruction

    held_out = held_out_images(dataset)
    return (
        reconstruction(config.model.codes, held_out),
        classifier(dataset, reconstructed, held_out.first(config.eval_samples)),
    )


def _drawn(tokenizer: Any, dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import compared

    real, made = stream.gather(compared, tokenizer, held_out_images(dataset).first(40))
    return images.rows_in_turn(real, made, 10), 10


def _draw(run: Finished, asked: ImageSample) -> int:
    """Held-out images and their reconstructions, a row of each in turn."""
    from ..data import load
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import compared
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    asked.check_label(run.facts.classes)
    mesh, dataset = make_mesh(asked.mesh), load(run.config.data)
    of_label = None if asked.label is None else dataset.test_labels == asked.label
    count = max(asked.columns, asked.n // 2 // asked.columns * asked.columns)
    real, made = Stream(mesh).gather(compared, run.model(mesh), held_out_images(dataset, of_label).first(count))
    return asked.save(images.rows_in_turn(real, made, asked.columns))


tokenizer_recipe = functools.partial(images.image_recipe, drawn=_drawn, evaluators=_evaluators, draw=_draw)
"""A recipe of tokenizers: see `image_recipe`. The released model is a `train.tasks.tokenizers.Tokenizer`."""
