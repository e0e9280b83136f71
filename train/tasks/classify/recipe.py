"""The recipe of image classifiers: checked labels, pictures after training, classified folders."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._files import write_json
from ...engine.recipes import Finished, Recipe
from .. import images, labels
from ..facts import ClassifierFacts, ImageFacts
from .asked import NAMES, ClassifierSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...engine.recipe import Program
    from ...engine.task import Task
    from ...evaluators.stream import Stream


def classifier_recipe(
    config: Any,
    presets: Mapping[str, Any],
    model: Callable[[Any, Any], Any],
    program: Callable[[Any, Any], "Program"],
) -> Recipe:
    """The recipe `classify`; see `image_recipe` for the arguments."""
    make = functools.partial(
        labels.labels_recipe, "classify", "Image classifier", config, presets, model, program, released=_alone
    )

    def task(config: Any, folder: Path) -> "Task":
        from ...parallel.processes import is_first
        from . import nets

        source = images.pixels(config, folder)
        dataset = source.given.labelled().complete(source.given.name)
        source = source._replace(facts=_facts(config, folder, source.facts))
        made = make(opened=lambda config, folder: source).task(config, folder)

        def prepare(folder: Path) -> None:
            if is_first():
                write_json(folder / NAMES, list(dataset.class_names))

        def show(model: Any, frozen: Any, stream: "Stream", path: Path) -> None:
            made.show(model, frozen, stream, path)
            if path.name == f"step-{config.steps:07d}":
                _last_pictures(config, model, dataset, stream, path.parents[1])

        released = functools.partial(nets.released, config)
        return dataclasses.replace(made, released=released, show=show, prepare=prepare)

    return dataclasses.replace(
        make(),
        facts=ClassifierFacts,
        on_paper=lambda config: _facts(config, Path(config.run_dir or "."), images.image_facts(config.data)),
        task=task,
        sample=ClassifierSample,
        draw=_draw,
    )


def _facts(config: Any, folder: Path, facts: ImageFacts) -> ClassifierFacts:
    mage = None
    if config.backbone == "mage":
        from .of_mage import described

        mage = described(config, folder, facts.shape)
    return ClassifierFacts(facts.shape, facts.classes, facts.levels, mage)


def _alone(net: Any, state: Any) -> Any:
    return net


def _last_pictures(config: Any, model: Any, dataset: Any, stream: "Stream", folder: Path) -> None:
    from . import pictures

    pictures.write_confusion(model, dataset, stream, folder)
    if config.backbone == "vit":
        pictures.write_attention(model, dataset, stream, folder)


def _draw(run: Finished, asked: ClassifierSample) -> int:
    if asked.images is None:
        return labels.draw(run, asked)
    from .folder import classify_folder

    return classify_folder(run, asked)
