"""Recipes of diffusion and flow models of images: pictures, a film of the denoising, evaluation, samples."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._errors import UsageError
from ..engine.recipes import Finished, Recipe
from . import images
from .facts import ImageFacts
from .latents import SCALE, autoencoder_of_run
from .sampling import ImageSample, given, with_options

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset
    from ..engine.recipe import Program
    from ..evaluators.base import Evaluator
    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream

ROW = 8
"""Images of each class in a picture."""
FILM = (32, 50)
"""Images of each sampler in the film, and steps."""


def denoising_recipe(
    name: str,
    title: str,
    config: type[images.ImageConfig],
    presets: Mapping[str, images.ImageConfig],
    model: Callable[[Any, ImageFacts], Any],
    program: Callable[[Any, ImageFacts], "Program"],
    loss: Callable[[Any, ImageFacts], Any],
    rules: Callable[[Any, ImageFacts], Any],
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> initialiser of the denoiser from a key.
        program: (config, facts) -> the model {"denoiser": ...} and its loss, of batches of `image` and `label`.
        loss: (config, facts) -> loss of the denoiser alone, for held-out examples.
        rules: (config, facts) -> `eqxgen.diffusion.generate.Rules`; a `ValueError` names a field of `sampling`.
    """

    def drawn(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
        facts = images.facts_of(dataset)
        tree = _tree(*parts, rules(config, facts), config.seed)
        return stream.gather(_draw, tree, _in_rows(facts.classes)), ROW

    def film(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[list[Any], int]:
        return _film(config, parts, images.facts_of(dataset), stream, rules)

    def evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
        return _evaluators(config, dataset, rules, loss)

    def sample(run: Finished, asked: Any) -> int:
        options = dataclasses.replace(run.config.sampling, **given(asked, kind))
        try:
            found = rules(dataclasses.replace(run.config, sampling=options), run.facts)
        except (ValueError, UsageError) as error:
            raise UsageError(f"--{str(error).removeprefix('--').replace('sampling.', '')}") from None
        return _sample(run, asked, found)

    kind = type(next(iter(presets.values())).sampling)  # pyright: ignore[reportAttributeAccessIssue]
    recipe = images.image_recipe(
        name,
        title,
        config,
        presets,
        model,
        program,
        released=lambda model, state: model["denoiser"],
        drawn=drawn,
        evaluators=evaluators,
        draw=sample,
        film=film,
    )
    return dataclasses.replace(recipe, sample=with_options(ImageSample, kind, "sampling."))


def _draw(tree: Any, example: Mapping[str, Any]) -> Any:
    """An image in [-1, 1] of a label, which depends on the key, its number and its label alone."""
    return _decoded(tree, _generated(tree, example).x)


def _path(tree: Any, example: Mapping[str, Any]) -> Any:
    """The images after each step."""
    import jax

    return jax.lax.map(lambda x: _decoded(tree, x), _generated(tree, example, trajectory=True).trajectory)


def _generated(tree: Any, example: Mapping[str, Any], *, trajectory: bool = False) -> Any:
    import jax.random as jr

    from eqxgen.diffusion.generate import generate

    denoiser, _, rules, key = tree
    null = denoiser.null_label
    label = None if null is None else example["label"]
    key = jr.fold_in(key, example["index"])
    return generate(denoiser, rules, label, null=null, key=key, trajectory=trajectory)


def _decoded(tree: Any, x: Any) -> Any:
    autoencoder = tree[1]
    return x if autoencoder is None else autoencoder.decode(x / SCALE)


def _tree(model: Any, autoencoder: Any, rules: Any, seed: int) -> Any:
    import jax.random as jr

    return model, autoencoder, rules, jr.key(seed)


def _in_rows(classes: int, count: int = 10, row: int = ROW) -> "Examples":
    import numpy as np

    from .draw import labelled

    return labelled(np.repeat(np.arange(classes)[:count] if classes > 1 else np.zeros(count, int), row))


def _film(
    config: Any, parts: tuple[Any, Any], facts: ImageFacts, stream: "Stream", rules: Callable[[Any, ImageFacts], Any]
) -> tuple[list[Any], int]:
    """Frames of ancestral sampling, left, beside DDIM without noise, from equal noise, and images in a row."""
    import numpy as np

    from .draw import labelled

    count, steps = FILM
    labels = labelled(np.arange(count) % facts.classes)
    sides = []
    for eta in (1.0, 0.0):
        options = dataclasses.replace(config.sampling, sampler="ddim", eta=eta, steps=min(steps, _most(config)))
        found = rules(dataclasses.replace(config, sampling=options), facts)
        sides.append(stream.gather(_path, _tree(*parts, found, config.seed), labels))
    both = np.stack(sides)  # side, image, step, height, width, channels
    side = 8
    grid = both.reshape(2, count // side, side, *both.shape[2:]).transpose(3, 1, 0, 2, 4, 5, 6)
    return list(np.clip(grid.reshape(both.shape[2], -1, *both.shape[3:]), -1, 1)), 2 * side


def _most(config: Any) -> int:
    schedule = config.denoiser.schedule
    return schedule.steps if schedule.discrete else FILM[1]


def _evaluators(
    config: Any,
    dataset: "Dataset",
    rules: Callable[[Any, ImageFacts], Any],
    loss: Callable[[Any, ImageFacts], Any],
) -> "tuple[Evaluator, ...]":
    import numpy as np

    from ..evaluators.cas import trained_on_samples
    from ..evaluators.classifier import classifier
    from ..evaluators.examples import held_out_images
    from ..evaluators.fidelity import fidelity
    from ..evaluators.held_out import held_out
    from .draw import labelled

    facts = images.facts_of(dataset)
    found = rules(config, facts)
    judged = labelled(np.arange(config.eval_samples) % facts.classes)
    parts = lambda model, frozen: _tree(model, frozen, found, config.seed + 1)
    judges = [kind(dataset, _draw, judged, parts) for kind in (classifier, fidelity, trained_on_samples)]
    if not config.conditional:
        judges = [judges[1], *(dataclasses.replace(each, lacks="the model has no classes") for each in judges[::2])]
    whole = held_out(loss(config, facts), held_out_images(dataset), lambda model: ({"denoiser": model}, None))
    return whole, *judges


def _sample(run: Finished, asked: ImageSample, rules: Any) -> int:
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .draw import labelled

    if not run.config.conditional and (asked.label is not None or asked.labels):
        flag = "--label" if asked.labels == () else "--labels"
        raise UsageError(f"{flag}: the model has no classes: leave it out")
    labels, mesh = images.labels_of(asked, run.facts.classes), make_mesh(asked.mesh)
    where, shape = run.config.autoencoder, run.facts.shape
    autoencoder = autoencoder_of_run(run.folder, where, shape) if where else None
    tree = _tree(run.model(mesh), autoencoder, rules, asked.seed)
    return asked.save(Stream(mesh).map(_draw, tree, labelled(labels)), labels)
