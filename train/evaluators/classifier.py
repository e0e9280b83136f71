"""A classifier of real images that judges samples.

It is trained on the real training images alone and kept in the cache, with its accuracy on the held-out images beside
it.
"""

import dataclasses
import hashlib
import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Float, Int

from eqxgen.metrics import frechet_distance
from eqxgen.models.convnet import ConvNet

from .._errors import UserError
from ..config.data import cache_folder
from ..data import Dataset, batch_indices
from ..optim.ema import decay, move
from ..run.weights import load_model, save_model
from .batched import batched

_VERSION = 2  # of the training below: a change of it makes cached judges stale
_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained classifier, and its accuracy on held-out real images."""

    model: ConvNet
    accuracy: float

    def __call__(self, images: Float[np.ndarray, "n height width channels"]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted classes `(n,)` and features `(n, features)` of images in [-1, 1]."""
        return batched(_look(self.model), images)

    def scores(
        self, samples: Float[np.ndarray, "n height width channels"], labels: Int[np.ndarray, " n"], dataset: Dataset
    ) -> dict[str, float]:
        """How samples in [-1, 1] of the asked labels fare.

        `sample_accuracy`: the share that is classified as the class asked for. `sample_frechet`: the Fréchet distance
            between this
        classifier's features of the samples and of the held-out real images; it is not FID, which has the features of
        Inception.
        """
        guesses, features = self(samples)
        _, real = self(dataset.normalise(dataset.test_images))
        return {
            "sample_accuracy": float(np.mean(guesses == labels)),
            "sample_frechet": frechet_distance(features, real),
            "classifier_accuracy": self.accuracy,
        }


class _look(eqx.Module):
    model: ConvNet

    def __call__(self, image):
        features = self.model.features(image)
        return jnp.argmax(self.model.head(features)), features


def judge_of(dataset: Dataset, say=print) -> Judge:
    """The judge of a data set, from the cache or trained now (seconds for digits, about a minute for MNIST on two CPU
    cores).
    """
    size = max(dataset.image_shape[:2])
    plan = {
        "version": _VERSION,
        "data": dataset.fingerprint,
        "channels": dataset.image_shape[2],
        "classes": dataset.num_classes,
        "width": 32 if size <= 16 else 16,
        "levels": max(1, min(4, (size // 7).bit_length())) if size > 8 else 1,
        "steps": max(300, min(1500, len(dataset.train_images) // 100)),
    }
    name = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder().parent / "judges" / f"{dataset.name.replace(os.sep, '_')}-{name}.safetensors"
    try:
        model, description = load_model(path, lambda description: _build(description["plan"]))
        return Judge(model, description["accuracy"])
    except (UserError, KeyError, TypeError):
        say("training the classifier that judges samples (once; it is cached) ...")
    model = _train(plan, dataset)
    guesses, _ = batched(_look(model), dataset.test_images, prepare=dataset.normalise)
    accuracy = float(np.mean(guesses == dataset.test_labels))
    try:
        save_model(path, model, {"plan": plan, "accuracy": accuracy})
    except UserError as error:
        say(f"the classifier could not be cached: {error}")
    return Judge(model, accuracy)


def _build(plan: dict) -> ConvNet:
    return ConvNet(plan["channels"], plan["classes"], width=plan["width"], levels=plan["levels"], key=jr.key(0))


def _train(plan: dict, dataset: Dataset) -> ConvNet:
    model, steps = _build(plan), plan["steps"]
    tx = optax.adamw(optax.warmup_cosine_decay_schedule(0, 3e-3, steps // 10, steps), weight_decay=0.01)
    state = (model, model, tx.init(eqx.filter(model, eqx.is_inexact_array)))

    @eqx.filter_jit
    def step(state, images, labels, number):
        model, ema, opt_state = state
        keys = jr.split(jr.fold_in(jr.key(1), number), len(images))

        @eqx.filter_grad
        def gradient(model):
            logits = jax.vmap(lambda image, key: model(_shift(image, key), key=key))(images, keys)
            targets = optax.smooth_labels(jax.nn.one_hot(labels, plan["classes"]), 0.05)
            return jnp.mean(optax.softmax_cross_entropy(logits, targets))

        updates, opt_state = tx.update(gradient(model), opt_state, eqx.filter(model, eqx.is_inexact_array))
        model = eqx.apply_updates(model, updates)
        return model, move(ema, model, decay(0.99)(number)), opt_state

    for number in range(steps):
        chosen = batch_indices(0, number, _BATCH, len(dataset.train_images))
        images = dataset.normalise(dataset.train_images[chosen])
        state = step(state, images, dataset.train_labels[chosen], np.int32(number))
    return state[1]


def _shift(image: jax.Array, key: jax.Array) -> jax.Array:
    """The image moved by up to a sixteenth of its side, at least a pixel: the one augmentation that suits digits and
    photographs alike.
    """
    reach = max(1, image.shape[0] // 16)
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    top, left = jr.randint(key, (2,), 0, 2 * reach + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
