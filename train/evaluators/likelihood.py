"""Bounds of the likelihood of held-out images by a model with latents."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray, PyTree

from eqxgen.losses.elbo import importance_weighted_nll, negative_elbo
from eqxgen.metrics import PSNR, Mean

from ..config.evals import ELBO, likelihood_of
from .base import Evaluator
from .examples import Examples
from .stream import Stream

SEED = 20160305
"""Seed by which held-out images are binarised, the same for every run."""


def binarised(image: Array, *, key: PRNGKeyArray) -> Array:
    """An image of -1 and 1, each pixel 1 with the probability of its grey level (Salakhutdinov and Murray 2008)."""
    ones = jr.bernoulli(key, 0.5 * (image.astype(jnp.float32) + 1.0))
    return jnp.where(ones, 1.0, -1.0).astype(image.dtype)


def elbo(images: Examples, *, binary: bool) -> Evaluator:
    """`eval_loss`, the negative evidence lower bound in nats of an image, mean over the images, with one draw of each
    posterior, the same at every call; `eval_divergence`, its second term; `psnr` of the images through the mean of
    their posteriors, in dB.

    Args:
        images: `image`, in [-1, 1].
        binary: the images are binarised by `SEED` first; a line and a note say so.
    """
    notes = {"binarisation_seed": str(SEED)} if binary else {}

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        if binary:
            stream.say(f"held-out images are binarised with seed {SEED}")
        total, divergence, quality = Mean(), Mean(), PSNR()
        for bound, term, error in stream.map(_Bound(binary), (model, jr.key(0), jr.key(SEED)), images):
            total, divergence, quality = total.update(bound), divergence.update(term), quality.update(error)
        total, divergence, quality = stream.total(total, divergence, quality)
        found = {"eval_loss": total.result(), "eval_divergence": divergence.result()}
        return found | {"psnr": quality.result()}

    return Evaluator(ELBO, run, notes=notes)


def likelihood(images: Examples, samples: int, *, binary: bool) -> Evaluator:
    """`nll_iwK`, the importance-weighted negative log-likelihood of K draws in nats of an image, mean over the images
    (Burda et al. 2016, arXiv:1509.00519, equation 8).

    Args:
        images: as `elbo`'s.
        samples: K.
        binary: as `elbo`'s.
    """
    kind = likelihood_of(samples)

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        mean, tree = Mean(), (model, jr.key(1), jr.key(SEED))
        for found in stream.map(_Weighted(samples, binary), tree, images):
            mean = mean.update(found)
        (mean,) = stream.total(mean)
        return {kind.gives[0]: mean.result()}

    return Evaluator(kind, run)


class _Bound(eqx.Module):
    binary: bool = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array, Array]:
        model, image, key = _known(tree, example, self.binary)
        bound = negative_elbo(model, image, key=key)
        error = jnp.mean((model(image)[0].astype(jnp.float32) - image) ** 2)
        return bound.total, bound.divergence, error


class _Weighted(eqx.Module):
    samples: int = eqx.field(static=True)
    binary: bool = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> Array:
        model, image, key = _known(tree, example, self.binary)
        return importance_weighted_nll(model, image, self.samples, key=key)


def _known(tree: PyTree, example: dict[str, Array], binary: bool) -> tuple[Any, Array, Array]:
    """The model, the image that it sees, and a key of its draws, which both depend on the image's number alone."""
    model, key, fixed = tree
    image, index = example["image"], example["index"]
    image = binarised(image, key=jr.fold_in(fixed, index)) if binary else image
    return model, image, jr.fold_in(key, index)
