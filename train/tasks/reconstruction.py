"""Recipes of image tokenizers: pictures of reconstructions, evaluation."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._errors import UsageError
from ..engine.recipes import Finished
from . import images
from .sampling import COLUMNS, ImageSample, at_most
from .usage import low_usage

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset
    from ..evaluators.base import Evaluator
    from ..evaluators.stream import Function, Stream


def _evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    from ..evaluators.classifier import classifier
    from ..evaluators.examples import held_out_images
    from ..evaluators.fidelity import fidelity
    from ..evaluators.reconstruction import reconstructed, reconstruction

    held_out = held_out_images(dataset)
    return (
        reconstruction(config.sizes.codes, held_out),
        classifier(dataset, reconstructed, held_out.first(config.eval_samples)),
        fidelity(dataset, reconstructed, held_out.first(config.eval_samples), paired=True),
    )


def _drawn(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import Beside, reconstructed

    real, made = stream.gather(Beside(reconstructed), parts[0], held_out_images(dataset).first(40))
    return images.rows_in_turn(real, made, 10), 10


def reconstruct(run: Finished, asked: ImageSample, through: "Function") -> int:
    """Writes held-out images and their reconstructions, a row of each in turn; as single images, the reconstructions
    alone. Gives the exit status.

    Args:
        through: reconstruction of (released model, example).
    """
    import numpy as np

    from ..data import load
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import Beside
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    count = asked.count(len(images.classes_of(asked, run.facts.classes)))
    stream, dataset = Stream(make_mesh(asked.mesh)), load(run.config.data)
    rows = images.rows_of(asked, dataset.test_labels, run.facts.classes)
    chosen = held_out_images(dataset, np.isin(np.arange(len(dataset.test_labels)), rows))
    pictured = f"held-out images{' and their reconstructions' * asked.as_grid}"
    at_most("--n", asked.n, len(rows) * (1 + asked.as_grid), pictured)
    if not asked.as_grid:
        made = stream.map(through, run.model(stream.mesh), chosen.first(count))
        return asked.save(made, dataset.test_labels[rows[:count]])
    pairs = len(rows) if asked.per_class else min(count // 2, len(rows))
    columns = asked.columns or max(width for width in range(1, COLUMNS + 1) if pairs % width == 0)
    if asked.n is asked.per_class is None and pairs > columns:
        pairs -= pairs % columns
    if (asked.n or 0) % 2 or pairs % columns:
        got = f"{pairs} images and their reconstructions" if asked.n is None else f"--n {asked.n}"
        raise UsageError(f"--out {asked.out} must have full rows, images in multiples of {2 * columns}: got {got}")
    real, made = stream.gather(Beside(through), run.model(stream.mesh), chosen.first(pairs))
    both = images.rows_in_turn(real, made, columns)
    return dataclasses.replace(asked, columns=columns).save([both], np.zeros(len(both), np.int32))


def _hint(config: Any, facts: Any, done: int, values: Mapping[str, Any]) -> str:
    height, width, _ = facts.shape
    places = config.batch_size * math.prod(config.places(height, width))
    return low_usage(config.sizes.codes, places, config.steps, done, values)


def _draw(run: Finished, asked: ImageSample) -> int:
    from ..evaluators.reconstruction import reconstructed

    return reconstruct(run, asked, reconstructed)


tokenizer_recipe = functools.partial(images.image_recipe, drawn=_drawn, evaluators=_evaluators, draw=_draw, hint=_hint)
"""A recipe of tokenizers: see `image_recipe`. The released model is a `train.tasks.tokenizers.Tokenizer`."""
