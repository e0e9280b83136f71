"""A classifier of real images that judges samples.

It is trained on the real training images alone and kept in the cache, with its accuracy on the held-out images beside
it.
"""

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, PyTree

from eqxgen.metrics import Accuracy, FeatureRows, Features, Moments, frechet_distance
from eqxgen.models.convnet import ConvNet

from .._errors import UserError
from ..config.data import cache_folder
from ..config.evals import CLASSIFIER
from ..data import Dataset, batch_indices
from ..optim.ema import decay, move
from ..parallel.processes import arrays_from_first, from_first
from ..report.log import time_left
from ..run.weights import load_model, save_model
from .base import Evaluator
from .examples import Examples, held_out_images
from .stream import PATIENCE, Function, Stream

_VERSION = 2  # of the training below: a change of it makes cached judges stale
_BATCH = 128
_CHUNK = 5  # steps that are in flight at once
_SECONDS = 1.0  # of training between looks for a signal


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier of real images.

    Attributes:
        accuracy: on the held-out real images.
        seconds: of its training; 0 where it came from the cache.
    """

    model: ConvNet
    accuracy: float
    seconds: float = 0.0


def classifier(
    dataset: Dataset, draw: Function, samples: Examples, parts: Callable[[PyTree, Any], PyTree] = lambda model, _: model
) -> Evaluator:
    """Judgement of samples by a classifier of the real images.

    `sample_accuracy`: share of the samples that it gives their own class. `sample_frechet`: Fréchet distance between
    its features of the samples and of the held-out real images; it is not FID, which has the features of Inception.
    `classifier_accuracy`: its accuracy on the held-out real images.

    Args:
        dataset: the real images.
        draw: (parts, example) -> image in [-1, 1].
        samples: the samples' `label`, and the other arrays that `draw` needs.
        parts: (released model, frozen parts) -> the models and keys that `draw` needs; by default the model.
    """
    known: dict[str, tuple[Judge, Moments]] = {}  # the judge of the run, from its first evaluation on

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        if "judge" not in known:
            judge = judge_of(dataset, stream)
            known["judge"] = judge, _looked_at(judge.model, held_out_images(dataset), stream)[1]
        judge, real = known["judge"]
        accuracy, features = Accuracy(), Moments()
        tree = parts(model, frozen), judge.model
        for guesses, found, labels in stream.map(_Judged(draw), tree, samples):
            accuracy, features = accuracy.update(guesses, labels), features.update(found)
        accuracy, features = stream.total(accuracy, features)
        return {
            "sample_accuracy": accuracy.result(),
            "sample_frechet": frechet_distance(features, real, warn=stream.say),
            "classifier_accuracy": judge.accuracy,
            "judge_seconds": judge.seconds,
        }

    return Evaluator(CLASSIFIER, run, lacks="" if dataset.num_classes > 1 else "the images have one class")


class _Judged(eqx.Module):
    draw: Function = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array, Array]:
        parts, judge = tree
        return *_look(judge, self.draw(parts, example)), example["label"]


def _look(judge: ConvNet, image: Array) -> tuple[Array, Array]:
    features = judge.features(image)
    return jnp.argmax(judge.head(features)), features


def _image(tree: PyTree, example: dict[str, Array]) -> Array:
    return example["image"]


def _looked_at(judge: ConvNet, images: Examples, stream: Stream) -> tuple[Accuracy, Moments]:
    """Accuracy on labelled images, and the moments of their features."""
    accuracy, features = Accuracy(), Moments()
    for guesses, found, labels in stream.map(_Judged(_image), (None, judge), images):
        accuracy, features = accuracy.update(guesses, labels), features.update(found)
    return stream.total(accuracy, features)


def features_of(
    draw: Function | None, tree: PyTree, judge: ConvNet, images: Examples, features: Features, stream: Stream
) -> FeatureRows:
    """The judge's features of images in [-1, 1], in every process: of those that `draw` makes of `tree`, or of real
    ones where it is None.
    """
    rows = FeatureRows(features=features)
    for _, found, _ in stream.map(_Judged(draw or _image), (tree, judge), images):
        rows = rows.update(found)
    return stream.total(rows)[0]


def judge_of(dataset: Dataset, stream: Stream) -> Judge:
    """The judge of a data set, from the cache or trained now by the first process (seconds for digits, about a minute
    for MNIST on two CPU cores).

    Raises:
        Stopped: a signal ended its training.
    """
    plan = _plan(dataset)
    name = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder().parent / "judges" / f"{dataset.name.replace(os.sep, '_')}-{name}.safetensors"
    trainer = _Trainer(plan, dataset)
    accuracy = from_first(lambda: trainer.load(path))
    if accuracy is not None:
        return Judge(arrays_from_first(trainer.model), accuracy)
    began = time.perf_counter()
    stream.say(f"training the classifier that judges samples: {plan['steps']} steps, once; it is cached ...")
    model = _trained(trainer, stream)
    accuracy = _looked_at(model, held_out_images(dataset), stream)[0].result()
    seconds = round(time.perf_counter() - began, 2)
    stream.say(f"classifier trained in {seconds:.0f} s: accuracy {accuracy:.4g} on held-out images")
    if problem := from_first(lambda: _kept(path, model, plan, accuracy)):
        stream.say(f"the classifier could not be cached: {problem}")
    return Judge(model, accuracy, seconds)


def accuracy_of(dataset: Dataset, stream: Stream) -> float:
    """Accuracy on the held-out images of a classifier like the judge, trained on the data set's training images and
    not cached.

    Raises:
        Stopped: a signal ended its training.
    """
    model = _trained(_Trainer(_plan(dataset), dataset), stream)
    return _looked_at(model, held_out_images(dataset), stream)[0].result()


def _trained(trainer: "_Trainer", stream: Stream) -> ConvNet:
    """The classifier after all steps, which the first process makes."""
    done, said = 0, (began := time.perf_counter())
    while done < trainer.steps:
        stream.check()
        done, now = from_first(functools.partial(trainer.train, done)), time.perf_counter()
        if now - said > PATIENCE:
            left = (now - began) / done * (trainer.steps - done)
            stream.say(f"classifier: step {done} of {trainer.steps}, {time_left(left)} left")
            said = now
    return arrays_from_first(trainer.model)


def _plan(dataset: Dataset) -> dict[str, Any]:
    size = max(dataset.image_shape[:2])
    return {
        "version": _VERSION,
        "data": dataset.fingerprint,
        "channels": dataset.image_shape[2],
        "classes": dataset.num_classes,
        "width": 32 if size <= 16 else 16,
        "levels": max(1, min(4, (size // 7).bit_length())) if size > 8 else 1,
        "steps": max(300, min(1500, len(dataset.train_images) // 100)),
    }


def _kept(path: Path, model: ConvNet, plan: dict[str, Any], accuracy: float) -> str:
    try:
        save_model(path, model, {"plan": plan, "accuracy": accuracy})
    except UserError as error:
        return str(error)
    return ""


def _build(plan: dict) -> ConvNet:
    return ConvNet(plan["channels"], plan["classes"], width=plan["width"], levels=plan["levels"], key=jr.key(0))


class _Trainer:
    """The judge's training, a few steps at a time."""

    def __init__(self, plan: dict[str, Any], dataset: Dataset):
        self.steps = steps = plan["steps"]
        rate = optax.warmup_cosine_decay_schedule(0, 3e-3, steps // 10, steps)
        self.optimiser = optax.adamw(rate, weight_decay=0.01)
        self.dataset, self.model = dataset, _build(plan)
        self.state = self.model, self.optimiser.init(eqx.filter(self.model, eqx.is_inexact_array))

    def load(self, path: Path) -> float | None:
        """Takes the judge from the cache and gives its accuracy, or None where there is none."""
        try:
            self.model, description = load_model(path, lambda description: _build(description["plan"]))
            return description["accuracy"]
        except (UserError, KeyError, TypeError):
            return None

    def train(self, first: int) -> int:
        """Makes the steps of about a second; gives the number made so far. `model` is the average of the weights."""
        dataset, began, done = self.dataset, time.perf_counter(), first
        while done < self.steps and time.perf_counter() - began < _SECONDS:
            chunk = range(done, min(done + _CHUNK, self.steps))
            for number in chunk:
                chosen = batch_indices(0, number, _BATCH, len(dataset.train_images))
                batch = dataset.normalise(dataset.train_images[chosen]), dataset.train_labels[chosen], np.int32(number)
                self.state, self.model = _step(self.state, self.model, batch, self.optimiser.update)
            jax.block_until_ready(eqx.filter(self.model, eqx.is_array))
            done = chunk.stop
        return done


@eqx.filter_jit
def _step(state: tuple[ConvNet, Any], average: ConvNet, batch: Any, update: Callable) -> tuple[Any, ConvNet]:
    (model, opt_state), (images, labels, number) = state, batch
    keys = jr.split(jr.fold_in(jr.key(1), number), len(images))

    @eqx.filter_grad
    def gradient(model: ConvNet) -> Array:
        logits = jax.vmap(lambda image, key: model(_shift(image, key), key=key))(images, keys)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.05)
        return jnp.mean(optax.softmax_cross_entropy(logits, targets))

    updates, opt_state = update(gradient(model), opt_state, eqx.filter(model, eqx.is_inexact_array))
    model = eqx.apply_updates(model, updates)
    return (model, opt_state), move(average, model, decay(0.99)(number))


def _shift(image: jax.Array, key: jax.Array) -> jax.Array:
    """The image moved by up to a sixteenth of its side, at least a pixel: the one augmentation that suits digits and
    photographs alike.
    """
    reach = max(1, image.shape[0] // 16)
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    top, left = jr.randint(key, (2,), 0, 2 * reach + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
