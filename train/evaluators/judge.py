"""Classifiers of real images that judge samples: `judge`, of convolutions, and `judge_vit`, a transformer.

Each is trained on the real training images alone and kept in the cache, with its accuracy on the held-out images beside
it.
"""

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.configs import ViTConfig
from eqxgen.metrics import Accuracy, FeatureRows, Moments
from eqxgen.models.convnet import ConvNet
from eqxgen.models.vit import ViT
from eqxgen.nn import Projection

from .._errors import UserError
from ..config.data import cache_folder
from ..config.evals import JUDGES
from ..data import Dataset, batch_indices
from ..parallel.processes import arrays_from_first, from_first
from ..run.weights import load_model, save_model
from .examples import Examples, held_out_images
from .stream import Function, Stream
from .training import Trainer, smoothed, trained

_VERSION = 2  # of the training below: a change of it makes cached judges stale
_BATCH = 128
_GRID = 4  # patches along a side of the transformer's, at most


class Patched(eqx.Module):
    """The second judge's net: the mean of a small transformer's patches. Sides that the patch does not divide are
    continued by their last pixels.
    """

    vit: ViT
    head: Projection
    patch: int = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, classes: int, *, key: PRNGKeyArray):
        self.patch = max(2, -(-max(height, width) // _GRID))
        config = ViTConfig(self.patch, 64, 3, 4, class_token=False, pool="mean")
        whole, keys = lambda side: -(-side // self.patch) * self.patch, jr.split(key)
        self.vit = ViT(whole(height), whole(width), channels, None, config, key=keys[0])
        self.head = Projection(config.dim, classes, key=keys[1])

    def features(self, image: Float[Array, "height width channels"]) -> Float[Array, " features"]:
        """The mean of the patches of an image in [-1, 1]."""
        lacks = [(0, -side % self.patch) for side in image.shape[:2]]
        return self.vit(jnp.pad(image, (*lacks, (0, 0)), mode="edge"))

    def __call__(
        self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " classes"]:
        """Logits of an image in [-1, 1]; the key is `ConvNet`'s, for dropout, which there is none of."""
        return self.head(self.features(image))


Net = ConvNet | Patched
S = TypeVar("S", Moments, FeatureRows)


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier of real images.

    Attributes:
        accuracy: on the held-out real images.
        seconds: of its training; 0 where it came from the cache.
    """

    model: Net
    accuracy: float
    seconds: float = 0.0


def judge_of(dataset: Dataset, stream: Stream, name: str = JUDGES[0]) -> Judge:
    """The judge of a data set, from the cache or trained now by the first process (seconds for digits, about a minute
    for MNIST on two CPU cores).

    Raises:
        Stopped: a signal ended its training.
    """
    plan = _plan(dataset, name)
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder().parent / "judges" / f"{dataset.name.replace(os.sep, '_')}-{digest}.safetensors"
    trainer = _trainer(plan, dataset)
    accuracy = from_first(functools.partial(_taken, trainer, path))
    if accuracy is not None:
        return Judge(arrays_from_first(trainer.model), accuracy)
    began = time.perf_counter()
    which = "classifier" if name == JUDGES[0] else "second classifier"
    stream.say(f"training the {which} that judges samples: {plan['steps']} steps, once; it is cached ...")
    model = trained(trainer, stream)
    accuracy = looked_at(model, held_out_images(dataset), Moments(), stream)[0].result()
    seconds = round(time.perf_counter() - began, 2)
    stream.say(f"{which} trained in {seconds:.0f} s: accuracy {accuracy:.4g} on held-out images")
    if problem := from_first(lambda: _kept(path, model, plan, accuracy)):
        stream.say(f"the {which} could not be cached: {problem}")
    return Judge(model, accuracy, seconds)


def accuracy_of(dataset: Dataset, stream: Stream) -> float:
    """Accuracy on the held-out images of a classifier like the judge, trained on the data set's training images and
    not cached.

    Raises:
        Stopped: a signal ended its training.
    """
    model = trained(_trainer(_plan(dataset), dataset), stream)
    return looked_at(model, held_out_images(dataset), Moments(), stream)[0].result()


def looked_at(
    judge: Net, images: Examples, features: S, stream: Stream, draw: Function | None = None, tree: PyTree = None
) -> tuple[Accuracy, S]:
    """How often the judge gives labelled images in [-1, 1] their own class, and their features, in every process.

    Args:
        images: with `label`, and `image` or what `draw` needs.
        features: takes the features.
        draw: (tree, example) -> image; without it images are the examples' own.
    """
    return looked_at_by([judge], images, [features], stream, draw, tree)[0]


def looked_at_by(
    judges: Sequence[Net],
    images: Examples,
    features: Sequence[S],
    stream: Stream,
    draw: Function | None = None,
    tree: PyTree = None,
) -> list[tuple[Accuracy, S]]:
    """`looked_at` of each judge; all see one draw of an image."""
    known = [(Accuracy(), into) for into in features]
    for *looks, labels in stream.map(_Judged(draw), (tree, tuple(judges)), images):
        known = [
            (accuracy.update(guesses, labels), into.update(found))
            for (accuracy, into), (guesses, found) in zip(known, looks)
        ]
    return [stream.total(*of_judge) for of_judge in known]


class _Judged(eqx.Module):
    draw: Function | None = eqx.field(static=True)

    def __call__(self, trees: tuple[PyTree, tuple[Net, ...]], example: dict[str, Array]) -> tuple:
        tree, judges = trees
        image = example["image"] if self.draw is None else self.draw(tree, example)
        features = [judge.features(image) for judge in judges]
        looks = [(jnp.argmax(judge.head(found)), found) for judge, found in zip(judges, features)]
        return *looks, example["label"]


def _plan(dataset: Dataset, name: str = JUDGES[0]) -> dict[str, Any]:
    """All that the judge of a name depends on; photographs take more passes over the images than digits."""
    size, channels = max(dataset.image_shape[:2]), dataset.image_shape[2]
    steps = max(300, min(1500, len(dataset.train_images) // (100 if channels == 1 else 20)))
    plan = {
        "version": _VERSION,
        "data": dataset.fingerprint,
        "channels": channels,
        "classes": dataset.num_classes,
    }
    if name != JUDGES[0]:  # a transformer learns more slowly
        sides = {"height": dataset.image_shape[0], "width": dataset.image_shape[1]}
        return plan | {"net": name, "steps": 2 * steps} | sides
    levels = max(1, min(4, (size // 7).bit_length())) if size > 8 else 1
    return plan | {"width": 32 if size <= 16 else 16, "levels": levels, "steps": steps}


def _kept(path: Path, model: Net, plan: dict[str, Any], accuracy: float) -> str:
    try:
        save_model(path, model, {"plan": plan, "accuracy": accuracy})
    except UserError as error:
        return str(error)
    return ""


def _build(plan: dict) -> Net:
    of = plan["channels"], plan["classes"]
    if "net" in plan:
        return Patched(plan["height"], plan["width"], *of, key=jr.key(_seed(plan)))
    return ConvNet(*of, width=plan["width"], levels=plan["levels"], key=jr.key(_seed(plan)))


def _seed(plan: dict) -> int:
    return 2 if "net" in plan else 0


def _trainer(plan: dict[str, Any], dataset: Dataset) -> Trainer[Net]:
    seed = _seed(plan)

    def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = batch_indices(seed, number, _BATCH, len(dataset.train_images))
        return dataset.normalise(dataset.train_images[chosen]), dataset.train_labels[chosen]

    return Trainer(_build(plan), _loss, batch, plan["steps"], rate=3e-3, weight_decay=0.01, seed=seed + 1)


def _taken(trainer: Trainer[Net], path: Path) -> float | None:
    """Takes the judge from the cache and gives its accuracy, or None where there is none."""
    try:
        trainer.model, description = load_model(path, lambda description: _build(description["plan"]))
        return description["accuracy"]
    except (UserError, KeyError, TypeError):
        return None


def _loss(model: Net, batch: tuple[Array, Array], key: PRNGKeyArray) -> Array:
    images, labels = batch
    keys = jr.split(key, len(images))
    logits = jax.vmap(lambda image, key: model(_shift(image, key), key=key))(images, keys)
    return smoothed(logits, labels, 0.05)


def _shift(image: jax.Array, key: jax.Array) -> jax.Array:
    """The image moved by up to a sixteenth of its side, at least a pixel: the one augmentation that suits digits and
    photographs alike.
    """
    reach = max(1, image.shape[0] // 16)
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    top, left = jr.randint(key, (2,), 0, 2 * reach + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
