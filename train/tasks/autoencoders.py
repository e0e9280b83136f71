"""Recipes of autoencoders with a Gaussian of latents: pictures, evaluation, samples."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from .._errors import UserError, require
from ..engine.recipes import Finished
from . import images
from .reconstruction import reconstruct
from .sampling import COLUMNS, ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Dataset
    from ..evaluators.base import Evaluator
    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream

ROW = 10
"""Images in a row of a picture during training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSample(ImageSample):
    """Held-out images above their reconstructions, or with --interpolate rows between two of them."""

    interpolate: bool = False
    """Rows of --columns images from one held-out image to another, on a line between the means of their posteriors."""

    def __post_init__(self):
        super().__post_init__()
        wide = self.columns is None or self.columns >= 2
        require(wide or not self.interpolate, f"columns must be at least 2 with --interpolate: got {self.columns}")
        row, whole = self.columns or COLUMNS, self.n or 0
        require(
            not self.interpolate or whole % row == 0,
            f"n must be a multiple of columns, {row}, with --interpolate: got {self.n}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorSample(LatentSample):
    """Images drawn from the prior; with --reconstruct or --interpolate, of held-out images."""

    reconstruct: bool = False
    """Held-out images above their reconstructions; as single images, the reconstructions alone."""

    def __post_init__(self):
        super().__post_init__()
        require(not (self.reconstruct and self.interpolate), "reconstruct goes without interpolate: give one of them")
        if not (self.reconstruct or self.interpolate):
            for name in ("per_class", "label", "labels"):
                value = getattr(self, name)
                require(
                    value in (None, ()),
                    f"{name} goes with --reconstruct or --interpolate: draws from the prior have no classes",
                )


def from_prior(tree: Any, example: dict[str, Any]) -> Any:
    """An image in [-1, 1] of latents drawn from the prior; it depends on the key and its number alone.

    Args:
        tree: (model, key).
    """
    import jax.random as jr

    model, key = tree
    return model.sample(key=jr.fold_in(key, example["index"]))


def between(model: Any, example: dict[str, Any]) -> Any:
    """An image of latents on the line from the posterior mean of `first` to that of `second`, at `share` of it."""
    first, second = (model.encode(example[name]).mean for name in ("first", "second"))
    return model.decode(first + example["share"].astype(first.dtype) * (second - first))


def interpolated(held_out: "Examples", rows: Any, columns: int) -> "Examples":
    """`first`, `second` and `share` of rows of images, each row between two held-out images.

    Args:
        rows: numbers of the held-out images, two for each row.
        columns: images of a row, both ends included.
    """
    import numpy as np

    from ..evaluators.examples import Examples

    def read(numbers: Any) -> dict[str, Any]:
        row, place = numbers // columns, numbers % columns
        ends = [held_out.read(rows[2 * row + end])["image"] for end in (0, 1)]
        return {"first": ends[0], "second": ends[1], "share": (place / (columns - 1)).astype(np.float32)}

    return Examples(len(rows) // 2 * columns, read, held_out.batch)


def _interpolate(run: Finished, asked: LatentSample) -> int:
    import numpy as np

    from ..data import load
    from ..evaluators.examples import held_out_images
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    columns, stream, dataset = asked.columns or COLUMNS, Stream(make_mesh(asked.mesh)), load(run.config.data)
    chosen = images.rows_of(dataclasses.replace(asked, per_class=None), dataset.test_labels, run.facts.classes)
    wanted = max(1, asked.count(len(images.classes_of(asked, run.facts.classes))) // columns)
    rows = chosen[: 2 * min(wanted, len(chosen) // 2)]
    if not len(rows):
        raise UserError(f"--out {asked.out}: --interpolate needs two held-out images: got {len(chosen)}")
    shown = interpolated(held_out_images(dataset), rows, columns)
    ends = dataset.test_labels[rows].reshape(-1, 2, 1)
    labels = np.where(np.arange(columns) < columns / 2, ends[:, 0], ends[:, 1]).reshape(-1)
    return dataclasses.replace(asked, columns=columns).save(stream.map(between, run.model(stream.mesh), shown), labels)


def _draw_latent(run: Finished, asked: LatentSample) -> int:
    from ..evaluators.reconstruction import through_mean

    return _interpolate(run, asked) if asked.interpolate else reconstruct(run, asked, through_mean)


def _draw_prior(run: Finished, asked: PriorSample) -> int:
    import jax.random as jr
    import numpy as np

    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .draw import labelled

    if asked.reconstruct or asked.interpolate:
        return _draw_latent(run, asked)
    labels, stream = np.zeros(asked.count(1), np.int32), Stream(make_mesh(asked.mesh))
    return asked.save(stream.map(from_prior, (run.model(stream.mesh), jr.key(asked.seed)), labelled(labels)), labels)


def _pairs(model: Any, dataset: "Dataset", stream: "Stream", count: int) -> Any:
    from ..evaluators.examples import held_out_images
    from ..evaluators.reconstruction import Beside, through_mean

    real, made = stream.gather(Beside(through_mean), model, held_out_images(dataset).first(count))
    return images.rows_in_turn(real, made, ROW)


def _drawn_latent(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
    return _pairs(parts[0], dataset, stream, 4 * ROW), ROW


def _drawn_prior(config: Any, parts: tuple[Any, Any], dataset: "Dataset", stream: "Stream") -> tuple[Any, int]:
    """Held-out images above their reconstructions, then draws from the prior."""
    import jax.random as jr
    import numpy as np

    from .draw import labelled

    drawn = stream.gather(from_prior, (parts[0], jr.key(config.seed)), labelled(np.zeros(4 * ROW, np.int32)))
    return np.concatenate([_pairs(parts[0], dataset, stream, 3 * ROW), drawn]), ROW


def _latent_evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    from ..evaluators.classifier import classifier
    from ..evaluators.examples import held_out_images
    from ..evaluators.fidelity import fidelity
    from ..evaluators.reconstruction import latent_reconstruction, through_mean

    held_out = held_out_images(dataset)
    judged = held_out.first(config.eval_samples)
    return (
        latent_reconstruction(held_out),
        classifier(dataset, through_mean, judged),
        fidelity(dataset, through_mean, judged, paired=True),
    )


def _prior_evaluators(config: Any, dataset: "Dataset") -> "tuple[Evaluator, ...]":
    import jax.random as jr
    import numpy as np

    from ..evaluators.classifier import classifier
    from ..evaluators.examples import held_out_images
    from ..evaluators.fidelity import fidelity
    from ..evaluators.likelihood import elbo, likelihood
    from ..evaluators.reconstruction import through_mean
    from .draw import labelled

    held_out = held_out_images(dataset)
    some, drawn = held_out.first(config.eval_samples), labelled(np.zeros(config.eval_samples, np.int32))
    return (
        elbo(held_out, binary=config.binarise),
        likelihood(some, config.iw_samples, binary=config.binarise),
        classifier(dataset, through_mean, some),
        fidelity(dataset, from_prior, drawn, lambda model, _: (model, jr.key(config.seed + 1))),
    )


def _latent_recipe(*parts: Any, **others: Any) -> Any:
    return dataclasses.replace(images.image_recipe(*parts, **others), sample=LatentSample)


def _prior_recipe(*parts: Any, **others: Any) -> Any:
    return dataclasses.replace(images.image_recipe(*parts, **others), sample=PriorSample)


latent_recipe = functools.partial(_latent_recipe, drawn=_drawn_latent, evaluators=_latent_evaluators, draw=_draw_latent)
"""A recipe of autoencoders whose latents have no prior to draw from: see `image_recipe`."""

prior_recipe = functools.partial(_prior_recipe, drawn=_drawn_prior, evaluators=_prior_evaluators, draw=_draw_prior)
"""A recipe of models of images with a prior of latents: see `image_recipe`."""
