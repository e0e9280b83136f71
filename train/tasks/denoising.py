"""Recipes of diffusion and flow models of images: pictures, a film of the denoising, evaluation, samples."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._errors import UsageError
from ..engine.recipes import Finished, Recipe
from . import editing, images
from .encoded.latent_data import Judged, on_paper, opened
from .encoded.latents import autoencoder_of_run, latents_of
from .facts import ImageFacts, LatentFacts
from .sampling import given, with_options

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
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

    def shown(config: Any, parts: tuple[Any, Any], judged: Judged, stream: "Stream") -> tuple[Any, int]:
        from .denoised import drawn

        tree = _tree(config, judged.facts, *parts, rules(config, judged.facts), config.seed)
        return stream.gather(drawn, tree, _in_rows(judged.facts.classes)), ROW

    def film(config: Any, parts: tuple[Any, Any], judged: Judged, stream: "Stream") -> tuple[list[Any], int] | None:
        if config.objective == "consistency":  # it has no path
            return None
        return _film(config, parts, judged.facts, stream, rules)

    def evaluators(config: Any, judged: Judged) -> "tuple[Evaluator, ...]":
        return _evaluators(config, judged, rules, loss)

    def sample(run: Finished, asked: Any) -> int:
        try:
            options = dataclasses.replace(run.config.sampling, **given(asked, kind))
            options = editing.sampling_of(asked, options)
            found = rules(dataclasses.replace(run.config, sampling=options), run.facts)
            _check_least(run, asked, options)
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
        drawn=shown,
        evaluators=evaluators,
        draw=sample,
        film=film,
        opened=opened,
    )
    flags = with_options(editing.DenoisingSample, kind, "sampling.")
    return dataclasses.replace(recipe, sample=flags, facts=LatentFacts, on_paper=on_paper, options="sampling")


def _tree(config: Any, facts: ImageFacts, model: Any, frozen: Any, rules: Any, seed: int) -> Any:
    """The tree of a model and the run's frozen part, which may be a teacher."""
    from .denoised import tree_of

    autoencoder = None if config.teacher else frozen
    return tree_of(model, autoencoder, rules, seed, latents_of(config.autoencoder, facts))


def _in_rows(classes: int, count: int = 10, row: int = ROW) -> "Examples":
    import numpy as np

    from .draw import labelled

    return labelled(np.repeat(np.arange(classes)[:count] if classes > 1 else np.zeros(count, int), row))


def _film(
    config: Any, parts: tuple[Any, Any], facts: ImageFacts, stream: "Stream", rules: Callable[[Any, ImageFacts], Any]
) -> tuple[list[Any], int]:
    """Frames of ancestral sampling, left, beside DDIM without noise, from equal noise, and images in a row."""
    import numpy as np

    from .denoised import path
    from .draw import labelled

    count, steps = FILM
    labels = labelled(np.arange(count) % facts.classes)
    sides = []
    for eta in (1.0, 0.0):
        options = dataclasses.replace(config.sampling, sampler="ddim", eta=eta, steps=min(steps, _most(config)))
        found = rules(dataclasses.replace(config, sampling=options), facts)
        sides.append(stream.gather(path, _tree(config, facts, *parts, found, config.seed), labels))
    both = np.stack(sides)  # side, image, step, height, width, channels
    side = 8
    grid = both.reshape(2, count // side, side, *both.shape[2:]).transpose(3, 1, 0, 2, 4, 5, 6)
    return list(np.clip(grid.reshape(both.shape[2], -1, *both.shape[3:]), -1, 1)), 2 * side


def _most(config: Any) -> int:
    schedule = config.denoiser.schedule
    return schedule.steps if schedule.discrete else FILM[1]


def _evaluators(
    config: Any,
    judged: Judged,
    rules: Callable[[Any, ImageFacts], Any],
    loss: Callable[[Any, ImageFacts], Any],
) -> "tuple[Evaluator, ...]":
    import numpy as np

    from ..evaluators.held_out import held_out
    from ..evaluators.judges import judges
    from .denoised import drawn
    from .draw import labelled

    facts = judged.facts
    found = rules(config, facts)
    samples = labelled(np.arange(config.eval_samples) % facts.classes)
    parts = lambda model, frozen: _tree(config, facts, model, frozen, found, config.seed + 1)
    kinds = judges(judged.images, drawn, samples, parts, judged.lacks)
    if not config.conditional:
        kinds = (kinds[1], *(dataclasses.replace(each, lacks="the model has no classes") for each in kinds[::2]))
    whole = held_out(loss(config, facts), judged.held_out, lambda model: ({"denoiser": model}, None))
    return whole, *kinds


def _check_least(run: Finished, asked: Any, options: Any) -> None:
    """Refuses --sigma-min or --grid that leads below the levels of training; a run's own grid is taken as it is."""
    from eqxgen.diffusion.generate import check_least
    from eqxgen.diffusion.schedules import schedule_of

    if asked.sigma_min is not None or asked.grid is not None:
        check_least(options, schedule_of(run.config.denoiser.schedule))


def _sample(run: Finished, asked: editing.DenoisingSample, rules: Any) -> int:
    from ..parallel import make_mesh
    from .denoised import tree_of

    if not run.config.conditional and (asked.label is not None or asked.labels):
        flag = "--label" if asked.labels == () else "--labels"
        raise UsageError(f"{flag}: the model has no classes: leave it out")
    where, facts = run.config.autoencoder, run.facts
    latents = latents_of(where, facts)

    def tree(rules: Any) -> Any:
        autoencoder = autoencoder_of_run(run.folder, where, facts) if latents else None
        return tree_of(run.model(make_mesh(asked.mesh)), autoencoder, rules, asked.seed, latents)

    if asked.text:
        from .clip.guidance import by_text

        return by_text(run, asked, rules, tree)
    make = _new if asked.asked is None else editing.edit
    return make(run, asked, rules, tree)


def _new(run: Finished, asked: editing.DenoisingSample, rules: Any, tree: Callable[[Any], Any]) -> int:
    """Images from noise."""
    import numpy as np

    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .denoised import counted
    from .draw import labelled

    labels = images.labels_of(asked, run.facts.classes)
    spent: list[Any] = []

    def batches() -> Iterator[Any]:
        for made, evaluations in Stream(make_mesh(asked.mesh)).map(counted, tree(rules), labelled(labels)):
            spent.append(evaluations)
            yield made

    status = asked.save(batches(), labels)
    print(f"{np.mean(np.concatenate(spent)):,.4g} evaluations of the network an image")
    return status
