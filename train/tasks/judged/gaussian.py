"""The program of an autoencoder with a Gaussian of latents: its losses, summed over the values of an image."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from ...engine.recipe import Context, Program
from ..facts import ImageFacts
from .losses import Judged, Seen, judged_program


class GaussianObjective(Judged):
    """Losses of a config of `train.klvae`."""

    PLAYER = "autoencoder"

    def forward(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Seen:
        net = model["autoencoder"]
        images = batch["image"].astype(net.encoder.stem.weight.dtype)

        def one(image: Array, key: Array) -> tuple[Array, Any]:
            posterior = net.encode(image)
            return net.features(posterior.sample(key=key)), posterior

        features, posterior = jax.vmap(one)(images, keys)
        results = jax.vmap(net.decoder.head)(features)
        return Seen(features, results, results, posterior)

    def image_of(self, net: Any, result: Array) -> Array:
        return result

    def terms(
        self, error: Array, seen: Seen, whole: dict[str, Any], batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        divergence = jax.vmap(lambda one: one.divergence())(seen.latents)
        return error + self.config.kl * divergence, {"divergence": divergence}, {}


def autoencoder_program(
    config: Any, facts: ImageFacts, make: Callable[[Any], Any], frozen: Callable[[], Any]
) -> Program:
    """The players of a config of `train.klvae`, and their turns.

    Args:
        make: initialiser of the autoencoder from a key.
        frozen: loads the perceptual net.
    """
    return judged_program(GaussianObjective(config, math.prod(facts.shape)), facts, make, frozen, trained="autoencoder")
