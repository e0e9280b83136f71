"""Recipes of image classifiers: data, facts, evaluation, pictures by predicted class."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.recipes import Finished, Recipe
from . import images
from .facts import ImageFacts, image_facts
from .sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset, Part
    from ..engine.loop import Task
    from ..engine.recipe import Program
    from ..evaluators.stream import Stream

ROW = 8
"""Images of each class in a picture."""


def labels_recipe(
    name: str,
    title: str,
    config: type[images.ImageConfig],
    presets: Mapping[str, images.ImageConfig],
    model: Callable[[Any, ImageFacts], Any],
    program: Callable[[Any, ImageFacts], "Program"],
    *,
    released: Callable[[Any, Any], Any],
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> what makes the released classifier from a key: image in [-1, 1] -> logits.
        program: (config, facts) -> the model, its losses and players, of batches of `image` and `label`.
        released: the classifier of the averaged model and the averaged model state.
    """
    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=ImageFacts,
        on_paper=lambda config: image_facts(config.data),
        model=model,
        program=program,
        task=lambda config, _: _task(config, program, released),
        sample=ImageSample,
        draw=_sample,
    )


def _task(config: Any, program: Callable[[Any, ImageFacts], "Program"], released: Callable[[Any, Any], Any]) -> "Task":
    import numpy as np

    from ..data import load
    from ..data.images.augment import Augment
    from ..engine.loop import Task
    from ..evaluators.examples import held_out_images
    from ..evaluators.labels import labels
    from ..evaluators.stream import Stream

    dataset = load(config.data).enough_for(config.batch_size)
    facts = images.facts_of(dataset)
    augment = Augment.of(config.data.augment, config.seed, dataset)

    def batch(part: "Part") -> dict[str, np.ndarray]:
        pictures = dataset.normalise(augment(dataset.train_images[part.example], part))
        return {"image": pictures, "label": dataset.train_labels[part.example]}

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        images.show(by_class(model, dataset, stream), dataset, ROW, path)

    return Task(
        facts,
        program(config, facts),
        dataset.train_images,
        batch,
        show,
        (labels(held_out_images(dataset)),),
        released=released,
        fingerprint=dataset.fingerprint,
    )


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


def _sample(run: Finished, asked: ImageSample) -> int:
    """Held-out images by predicted class."""
    from ..data import load
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    asked.check_label(run.facts.classes)
    mesh = make_mesh(asked.mesh)
    return asked.save(by_class(run.model(mesh), load(run.config.data), Stream(mesh), asked.label))
