"""Recipes of images: flags, facts, batches, pictures of many, and pictures that are given. Imports nothing heavy."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import DataError, UsageError, UserError, require
from ..config.base import TrainConfig
from ..config.data import DataConfig
from ..config.options import option
from ..engine.recipes import Finished, Recipe
from .facts import ImageFacts, image_facts
from .sampling import ImageSample, at_most

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset, Part
    from ..engine.recipe import Program
    from ..engine.task import Task
    from ..evaluators.base import Evaluator
    from ..evaluators.stream import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig(TrainConfig):
    """Flags of every recipe of images. A recipe's own `Config` adds its model."""

    data: DataConfig = option(factory=DataConfig)
    """The images."""
    eval_samples: int = option(1000, free=True)
    """Samples that the evaluators `classifier`, `fidelity` and `cas` take."""

    def __post_init__(self):
        super().__post_init__()
        require(self.eval_samples >= 2, f"eval_samples must be at least 2: got {self.eval_samples}")


class Source(NamedTuple):
    """Training data of a recipe of images.

    Attributes:
        given: to pictures and evaluators: the data set, or what takes its place.
        facts: of the data.
        examples: what training reads; `Lazy` ones are read ahead.
        arrays: those of some places of a batch.
        fingerprint: SHA-256 of the data.
    """

    given: Any
    facts: Any
    examples: Sized
    arrays: Callable[["Part"], Mapping[str, Any]]
    fingerprint: str


def pixels(config: Any, folder: Path, *, captions: bool = False) -> Source:
    """The images that `--data` names, augmented; `captions`: with those of a folder."""
    from ..data import load
    from ..data.images.augment import Augment

    dataset = load(config.data, captions=captions).enough_for(config.batch_size)
    augment = Augment.of(config.data.augment, config.seed, dataset)

    def arrays(part: "Part") -> dict[str, Any]:
        image = dataset.normalise(augment(dataset.train_images[part.example], part))
        return {"image": image, "label": dataset.train_labels[part.example]}

    return Source(dataset, facts_of(dataset), dataset.train_images, arrays, dataset.fingerprint)


def image_recipe(
    name: str,
    title: str,
    config: type[ImageConfig],
    presets: Mapping[str, ImageConfig],
    model: Callable[[Any, ImageFacts], Any],
    program: Callable[[Any, ImageFacts], "Program"],
    *,
    released: Callable[[Any, Any], Any],
    drawn: Callable[[Any, tuple[Any, Any], Any, "Stream"], tuple[Any, int]],
    evaluators: Callable[[Any, Any], "tuple[Evaluator, ...]"],
    draw: Callable[[Finished, ImageSample], int],
    film: Callable[[Any, tuple[Any, Any], Any, "Stream"], tuple[list[Any], int] | None] | None = None,
    hint: Callable[[Any, ImageFacts, int, Mapping[str, Any]], str] | None = None,
    opened: Callable[[Any, Path], Source] = pixels,
) -> Recipe:
    """A recipe of models of images.

    Args:
        model: (config, facts) -> initialiser of the released model from a key.
        program: (config, facts) -> the model, its losses and players, of batches of `image`, in [-1, 1], or `label`, or
            both.
        released: the released model of the averaged model and the averaged model state.
        drawn: (config, (released model, frozen parts), data set, stream) -> images that a run shows, and how many a row
            has.
        evaluators: (config, data set) -> those that --evals can name.
        draw: writes the images that `train.sample` is asked for; gives the exit status.
        film: as `drawn`, for the last step: frames of images, and how many a row has; or None, without one.
        hint: (config, facts, steps made, metrics) -> see `Task.hint`.
        opened: (config, folder of the run) -> the training data, whose `given` takes the place of the data set.
    """

    def task(config: Any, folder: Path) -> "Task":
        from ..engine.task import Task

        source = opened(config, folder)
        core = program(config, source.facts)

        def batch(part: "Part") -> dict[str, Any]:
            arrays = source.arrays(part)
            return {name: arrays[name] for name in core.shapes}

        def show(model: Any, frozen: Any, stream: "Stream", path: Path) -> None:
            pictures, columns = drawn(config, (model, frozen), source.given, stream)
            save(pictures, source.given, columns, path)
            if film is not None and path.name == f"step-{config.steps:07d}":
                shown = film(config, (model, frozen), source.given, stream)
                if shown is not None:
                    save_film(*shown, source.given, path.parents[1])

        return Task(
            source.facts,
            core,
            source.examples,
            batch,
            show,
            evaluators(config, source.given),
            released=released,
            fingerprint=source.fingerprint,
            hint=(lambda done, values: "") if hint is None else functools.partial(hint, config, source.facts),
        )

    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=ImageFacts,
        on_paper=lambda config: image_facts(config.data),
        model=model,
        program=program,
        task=task,
        sample=ImageSample,
        draw=draw,
    )


def check_sides(why: str, factor: int, shape: tuple[int, int, int]) -> None:
    """Checks that a factor divides the sides of images.

    Args:
        why: the flag, and its reason.

    Raises:
        UsageError: it does not.
    """
    if any(side % factor for side in shape[:2]):
        raise UsageError(f"{why} {factor} must divide its sides: got images of {shape}")


def facts_of(dataset: "Dataset") -> ImageFacts:
    """Facts of a data set."""
    return ImageFacts(dataset.image_shape, dataset.num_classes, dataset.levels)


def classes_of(asked: ImageSample, classes: int) -> Any:
    """The classes that `train.sample` is asked for: its labels, or all.

    Raises:
        UsageError: a label is none of the classes.
    """
    import numpy as np

    flag, given = ("--labels", asked.labels) if asked.label is None else ("--label", (asked.label,))
    for label in given:
        if label >= classes:
            raise UsageError(f"{flag} must be in [0, {classes}): got {label}")
    return np.asarray(given or range(classes), np.int32)


def labels_of(asked: ImageSample, classes: int) -> Any:
    """Labels `(n,)` of the images that `train.sample` is asked for: its classes in turn."""
    import numpy as np

    chosen = classes_of(asked, classes)
    return np.resize(chosen, asked.count(len(chosen)))


def rows_of(asked: ImageSample, labels: Any, classes: int) -> Any:
    """Numbers of the examples of the classes that `train.sample` is asked for, the first `--per-class` of each.

    Raises:
        UserError: there is none, or a class has fewer.
    """
    import numpy as np

    chosen = classes_of(asked, classes)
    for label in chosen if asked.per_class else ():
        at_most("--per-class", asked.per_class, int(np.sum(labels == label)), f"held-out images of class {label}")
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[: asked.per_class] for label in chosen]))
    if not len(rows):
        raise UserError(f"--out {asked.out}: there is no image of the classes {', '.join(map(str, chosen))}")
    return rows


def save(images: Any, dataset: Any, columns: int, path: Path) -> None:
    """Writes images in [-1, 1] as one picture, those with NaN black; of several processes the first writes.

    Args:
        dataset: a `Dataset`, or what has its `denormalise`.
        path: without suffix.
    """
    import numpy as np

    from ..data import image_grid, save_picture
    from ..parallel.processes import is_first

    if is_first():
        wrong = np.isnan(images).reshape(len(images), -1).any(axis=1)
        if wrong.any():
            print(f"samples: {wrong.sum()} of {len(images)} images are not numbers, and shown black")
            images = np.where(wrong[:, None, None, None], np.float32(-1), images)
        save_picture(path.with_suffix(".png"), image_grid(dataset.denormalise(images), columns))


def save_film(frames: Any, columns: int, dataset: Any, folder: Path) -> None:
    """Writes frames, each images in [-1, 1], as an animation; of several processes the first writes."""
    from ..data import image_grid
    from ..parallel.processes import is_first
    from ..report.animation import FILM, write_animation

    if is_first():
        write_animation([image_grid(dataset.denormalise(frame), columns) for frame in frames], folder / FILM)


def rows_in_turn(first: Any, second: Any, columns: int) -> Any:
    """A row of the first images, then one of the second, and so on, without what does not fill a row."""
    import numpy as np

    whole = len(first) // columns * columns
    pairs = np.stack([x[:whole].reshape(-1, columns, *x.shape[1:]) for x in (first, second)], axis=1)
    return pairs.reshape(-1, *first.shape[1:])


def picture_of(run: Finished, flag: str, path: str) -> Any:
    """A picture of the run's size as an image in [-1, 1]; a grey one has three equal channels where the run has three.

    Raises:
        UserError: it cannot be read, or is of another size or in colour.
    """
    pixels = _read(flag, path)
    height, width, channels = run.facts.shape
    if pixels.shape[:2] != (height, width) or pixels.shape[2] > channels:
        wanted = f"{height} x {width} in {_kind(channels)}"
        raise UserError(f"--{flag} {path}: must be {wanted}, as the run's images: got {_told(pixels)}")
    return _scaled(pixels, channels)


def small_of(run: Finished, path: str) -> Any:
    """A small picture, whose sides times a whole number are those of the run, as an image in [-1, 1]; channels as in
    `picture_of`.

    Raises:
        UserError: it cannot be read, or is of another size or in colour.
    """
    from eqxgen.diffusion.editing import factor_of

    pixels = _read("upscale", path)
    height, width, channels = run.facts.shape
    try:
        factor_of(pixels.shape[:2], (height, width))
    except ValueError as error:
        raise UserError(f"--upscale {path}: {error}") from None
    if pixels.shape[2] > channels:
        raise UserError(f"--upscale {path}: must be in {_kind(channels)}, as the run's images: got {_told(pixels)}")
    return _scaled(pixels, channels)


def _read(flag: str, path: str, *, mask: bool = False) -> Any:
    """Pixels of a picture or a mask that a flag names."""
    from ..data.images.picture import REPLACE, read_mask, read_picture

    try:
        return read_mask(Path(path)) if mask else read_picture(Path(path), None, hint=REPLACE)
    except DataError as error:
        raise UserError(f"--{flag} {error}") from None


def _scaled(pixels: Any, channels: int) -> Any:
    import numpy as np

    whole = np.broadcast_to(pixels, (*pixels.shape[:2], channels))
    return whole.astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def _kind(channels: int) -> str:
    return "grey" if channels == 1 else "colour"


def _told(pixels: Any) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]} in {_kind(pixels.shape[2])}"


def mask_of(run: Finished, path: str) -> Any:
    """A mask of the run's size: True where it is white.

    Raises:
        UserError: it cannot be read, is of another size, or is not of black and white.
    """
    mask = _read("mask", path, mask=True)
    if mask.shape != run.facts.shape[:2]:
        height, width, _ = run.facts.shape
        got = f"{mask.shape[0]} x {mask.shape[1]}"
        raise UserError(f"--mask {path}: must be {height} x {width}, as the run's images: got {got}")
    return mask
