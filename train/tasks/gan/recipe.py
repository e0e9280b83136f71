"""Recipes of generators: pictures at fixed latents, evaluation, samples by seed, paths between seeds, mixed styles."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..._errors import UsageError, require
from ...engine.recipes import Finished, Recipe
from .. import images
from ..facts import ImageFacts
from ..sampling import COLUMNS, ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...data import Dataset
    from ...engine.recipe import Program
    from ...evaluators.base import Evaluator
    from ...evaluators.examples import Examples
    from ...evaluators.stream import Stream

ROW = 8
"""Images of each class in a picture."""
STEPS = 500
"""Of a projection, by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSample(ImageSample):
    """Images by the seeds of their latents."""

    truncation: float = 1.0
    """Factor of a style vector's distance from the mean one: 1 as trained, below 1 less varied; stylegan2 alone."""
    seeds: str = ""
    """Seeds of the latents, such as 0-63 or 1,5,9: one image each."""
    interpolate: bool = False
    """Rows of images on the path from each seed to the next, of --columns images; by style vectors or on the sphere."""
    mix: int = 0
    """A row for each seed and a column for each of the next ones: the first layers' styles of the row, from layer --mix
    on those of the column; stylegan2 alone."""

    project: str | None = None
    """Picture of the run's size whose latent is sought, by gradient descent on squared errors; with --label where the
    run has classes. A grid has the picture and the images on the way; .npz the arrays `latent` and `images`."""
    steps: int | None = None
    """Steps of a projection; 500 by default."""

    def __post_init__(self):
        super().__post_init__()
        require(self.steps is None or self.steps >= 1, f"steps must be at least 1: got {self.steps}")
        require(self.steps is None or self.project is not None, f"steps must have --project: got {self.steps}")
        for name in ("seeds", "interpolate", "mix", "n", "per_class", "labels"):
            without = self.project is None or not getattr(self, name)
            require(without, f"{name} goes without project, which makes one image of one class")
        require(
            self.project is None or self.truncation == 1, f"truncation must be 1 with --project: got {self.truncation}"
        )
        require(
            self.project is None or not self.out.endswith("/"),
            f"out must be a picture or .npz with --project: got {self.out!r}",
        )
        require(0 <= self.truncation <= 2, f"truncation must be in [0, 2]: got {self.truncation}")
        require(self.mix >= 0, f"mix must be at least 0: got {self.mix}")
        require(not (self.mix and self.interpolate), "mix goes without interpolate: give one of them")
        require(not self.seeds or self.n is None, "n goes without seeds: give one of them")
        require(not self.seeds or self.per_class is None, "per_class goes without seeds: give one of them")
        least = 2 if self.mix or self.interpolate else 1
        require(
            not self.seeds or len(self.chosen) >= least, f"seeds must be at least {least} of them: got {self.seeds!r}"
        )
        require(bool(self.seeds) or least == 1, "interpolate and mix go with --seeds, which was not given")

    @property
    def chosen(self) -> tuple[int, ...]:
        """The seeds that the text names.

        Raises:
            ValueError: it is of another form.
        """
        return seeds_of(self.seeds)


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds of a text such as 0-63 or 1,5,9.

    Raises:
        ValueError: the text is of another form.
    """
    found: list[int] = []
    for part in (part.strip() for part in text.split(",") if text):
        first, dash, last = part.partition("-")
        holds = first.isdecimal() and (not dash or last.isdecimal()) and len(first) < 10 and len(last) < 10
        require(holds, f"seeds must be whole numbers of up to 9 digits or ranges, as in 0-63 or 1,5,9: got {text!r}")
        require(not dash or int(first) <= int(last), f"seeds must be ranges that rise, as in 0-63: got {part!r}")
        require(not dash or int(last) - int(first) < 100_000, f"seeds must be at most 100000 of them: got {part!r}")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def adversarial_recipe(
    name: str,
    title: str,
    config: type[images.ImageConfig],
    presets: Mapping[str, images.ImageConfig],
    model: Callable[[Any, ImageFacts], Any],
    program: Callable[[Any, ImageFacts], "Program"],
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> initialiser of the generator with its state, from a key.
        program: (config, facts) -> {"generator": ..., "discriminator": ...}, whose model state has `generator`.
    """
    recipe = images.image_recipe(
        name,
        title,
        config,
        presets,
        model,
        program,
        released=_released,
        drawn=_drawn,
        evaluators=_evaluators,
        draw=_sample,
    )
    return dataclasses.replace(recipe, sample=LatentSample)


def _released(model: Any, state: Any) -> Any:
    from eqxgen.nn import WithState

    return WithState(model["generator"], state["generator"])


def _tree(released: Any, seed: int, truncation: float = 1.0) -> Any:
    import jax.numpy as jnp
    import jax.random as jr

    return released, jr.key(seed), jnp.float32(truncation)


def _image(tree: Any, example: Mapping[str, Any]) -> Any:
    """An image in [-1, 1] of a label, which depends on the key, its number and its label alone."""
    import jax.random as jr

    released, key, truncation = tree
    latent_key, key = jr.split(jr.fold_in(key, example["index"]))
    return _of_latent(released, _latent(released, latent_key), example["label"], truncation, key)


def _of_seed(tree: Any, example: Mapping[str, Any]) -> Any:
    """The image of a seed."""
    import jax.random as jr

    released, _, truncation = tree
    key = jr.key(example["seed"])
    return _of_latent(released, _latent(released, key), example["label"], truncation, jr.fold_in(key, 1))


def _on_path(tree: Any, example: Mapping[str, Any]) -> Any:
    """An image on the path between two seeds; its noise is that of `--seed`."""
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.models.gan.latents import between

    released, key, truncation = tree
    first, second = (_latent(released, jr.key(example[name])) for name in ("seed", "other"))
    net, label = released.model, _label(released.model, example["label"])
    if not hasattr(net, "mapping"):
        return _clipped(net.sample(between(first, second, example["share"]), label, released.state, key=key))
    styles = [net.truncated(net.style(x, label), released.state, truncation) for x in (first, second)]
    styles = styles[0] + example["share"] * (styles[1] - styles[0])
    return _clipped(net.synthesis(jnp.broadcast_to(styles, (net.layers, *styles.shape)), key=key))


def _mixed(tree: Any, example: Mapping[str, Any]) -> Any:
    """The image of the styles of one seed up to a layer, and of another from there on."""
    import jax.numpy as jnp
    import jax.random as jr

    released, key, truncation = tree
    net, label = released.model, _label(released.model, example["label"])
    styles = [
        net.truncated(net.style(_latent(released, jr.key(example[name])), label), released.state, truncation)
        for name in ("seed", "other")
    ]
    first = jnp.arange(net.layers)[:, None] < example["layer"]
    return _clipped(net.synthesis(jnp.where(first, styles[0][None], styles[1][None]), key=key))


def _latent(released: Any, key: Any) -> Any:
    import jax.random as jr

    return jr.normal(key, (released.model.config.latent_dim,))


def _label(net: Any, label: Any) -> Any:
    return None if net.label_embedding is None else label


def _of_latent(released: Any, latent: Any, label: Any, truncation: Any, key: Any) -> Any:
    net = released.model
    options = {"truncation": truncation} if hasattr(net, "mapping") else {}
    return _clipped(net.sample(latent, _label(net, label), released.state, key=key, **options))


def _clipped(image: Any) -> Any:
    import jax.numpy as jnp

    return jnp.clip(image, -1, 1)


def _in_rows(classes: int, count: int = 10, row: int = ROW) -> "Examples":
    import numpy as np

    from ..draw import labelled

    return labelled(np.repeat(np.arange(classes)[:count] if classes > 1 else np.zeros(count, int), row))


def _drawn(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
    classes = dataset.num_classes if config.conditional else 1
    return stream.gather(_image, _tree(parts[0], config.seed), _in_rows(classes)), ROW


def _evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    import functools

    import numpy as np

    from ...evaluators.cas import trained_on_samples
    from ...evaluators.classifier import classifier
    from ...evaluators.fidelity import fidelity
    from ..draw import labelled
    from .paths import path_images

    judged = labelled(np.arange(config.eval_samples) % dataset.num_classes)
    parts = lambda model, frozen: _tree(model, config.seed + 1)
    scored = functools.partial(fidelity, path=functools.partial(path_images, config.family))
    judges = [kind(dataset, _image, judged, parts) for kind in (classifier, scored, trained_on_samples)]
    if not config.conditional:
        judges = [judges[1], *(dataclasses.replace(each, lacks="the model has no classes") for each in judges[::2])]
    return tuple(judges)


def _sample(run: Finished, asked: Any) -> int:
    import numpy as np

    from ...evaluators.examples import Examples
    from ...evaluators.stream import Stream
    from ...parallel import make_mesh
    from ..draw import labelled

    config = run.config
    if config.family != "stylegan2":
        for flag, given in (("--truncation", asked.truncation != 1), ("--mix", asked.mix > 0)):
            if given:
                raise UsageError(
                    f"{flag} must have a model with a mean style vector, stylegan2: got one of {config.family}; leave "
                    "it out"
                )
    if not config.conditional and (asked.label is not None or asked.labels):
        flag = "--label" if asked.labels == () else "--labels"
        raise UsageError(f"{flag}: the model has no classes: leave it out")
    classes, mesh = images.classes_of(asked, run.facts.classes), make_mesh(asked.mesh)
    if asked.project is not None:
        return _project(run, asked)
    released = run.model(mesh)
    tree, stream = _tree(released, asked.seed, asked.truncation), Stream(mesh)
    if not asked.seeds:
        labels = images.labels_of(asked, run.facts.classes)
        return asked.save(stream.map(_image, tree, labelled(labels)), labels)
    seeds = np.asarray(asked.chosen, np.uint32)
    of = lambda count: np.resize(classes, count)
    if asked.mix:
        if asked.mix >= released.model.layers:
            raise UsageError(f"--mix must be below the number of layers, {released.model.layers}: got {asked.mix}")
        count = len(seeds) // 2
        first, second = np.repeat(seeds[:count], len(seeds) - count), np.tile(seeds[count:], count)
        labels = np.repeat(of(count), len(seeds) - count)
        layer = np.full(len(first), asked.mix, np.int32)
        examples = Examples.of(250, label=labels, seed=first, other=second, layer=layer)
        asked = dataclasses.replace(asked, columns=asked.columns or len(seeds) - count)
        return asked.save(stream.map(_mixed, tree, examples), labels)
    if not asked.interpolate:
        labels = of(len(seeds))
        return asked.save(stream.map(_of_seed, tree, Examples.of(250, label=labels, seed=seeds)), labels)
    columns, count = asked.columns or COLUMNS, len(seeds) - 1
    share = np.tile(np.linspace(0, 1, columns, dtype=np.float32), count)
    labels = np.repeat(of(count), columns)
    examples = Examples.of(
        250, label=labels, seed=np.repeat(seeds[:-1], columns), other=np.repeat(seeds[1:], columns), share=share
    )
    return dataclasses.replace(asked, columns=columns).save(stream.map(_on_path, tree, examples), labels)


def _project(run: Finished, asked: Any) -> int:
    import jax.random as jr
    import numpy as np

    from ...evaluators.examples import Examples
    from ...evaluators.stream import Stream
    from ...parallel import make_mesh
    from .projection import Projection

    if run.config.conditional and asked.label is None:
        raise UsageError("--label must be given with --project, as the model has classes")
    picture, label, mesh = images.picture_of(run, "project", asked.project), asked.label or 0, make_mesh(asked.mesh)
    examples = Examples.of(
        1,
        image=picture[None],
        label=np.asarray([label], np.int32),
        steps=np.asarray([asked.steps or STEPS], np.int32),
    )
    (latent,), (made,) = Stream(mesh).gather(Projection(), (run.model(mesh), jr.key(asked.seed)), examples)
    off = float(np.sqrt(np.mean(np.square(made[-1] - picture))))
    print(f"projection: root mean squared error {off:.4g} in a range of 2")
    labels = np.full(1 + len(made), label, np.int32)
    shown = np.concatenate([picture[None], np.clip(made, -1, 1)])
    if asked.as_grid:
        return dataclasses.replace(asked, columns=asked.columns or len(shown)).save([shown], labels)
    return asked.save_arrays(shown[1:], labels[1:], latent=latent)
