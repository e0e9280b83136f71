"""Recipes of image tokenizers: data, facts, pictures of reconstructions, evaluation, samples."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.recipes import Finished, Recipe
from . import images
from .facts import ImageFacts, image_facts
from .sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Part
    from ..engine.loop import Task
    from ..engine.recipe import Program


def tokenizer_recipe(
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
        model: (config, facts) -> what makes the tokenizer from a key; see `train.tasks.tokenizers.Tokenizer`.
        program: (config, facts) -> the tokenizer, its losses and players, of batches of `image`.
        released: the tokenizer of the averaged model and the averaged model state.
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
    from ..evaluators.classifier import classifier
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import compared, reconstructed, reconstruction
    from ..evaluators.stream import Stream

    dataset = load(config.data).enough_for(config.batch_size)
    facts = images.facts_of(dataset)
    core = program(config, facts)
    augment = Augment.of(config.data.augment, config.seed, dataset)

    def batch(part: "Part") -> dict[str, np.ndarray]:
        return {"image": dataset.normalise(augment(dataset.train_images[part.example], part))}

    held_out = held_out_images(dataset)

    def show(tokenizer: Any, frozen: Any, stream: Stream, path: Path) -> None:
        real, made = stream.gather(compared, tokenizer, held_out.first(40))
        images.show(images.rows_in_turn(real, made, 10), dataset, 10, path)

    evaluators = (
        reconstruction(config.model.codes, held_out),
        classifier(dataset, reconstructed, held_out.first(config.eval_samples)),
    )
    return Task(
        facts,
        core,
        dataset.train_images,
        batch,
        show,
        evaluators,
        released=released,
        fingerprint=dataset.fingerprint,
    )


def _sample(run: Finished, asked: ImageSample) -> int:
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
