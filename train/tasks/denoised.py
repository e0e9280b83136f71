"""Images of a denoiser: functions of one example, for `train.evaluators.stream.Stream`.

Their tree is (denoiser, None or (autoencoder, latents), `eqxgen.diffusion.generate.Rules`, key). Image i depends on the
key, i and its label alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from eqxgen.diffusion.generate import generate
from eqxgen.diffusion.solvers import Sample

from .encoded.encoders import in_float32
from .encoded.latents import SCALE, Latents

NO_CLASS = -1
"""Label of an image without one."""


def tree_of(denoiser: Any, autoencoder: Any, rules: Any, seed: int, latents: Latents | None = None) -> Any:
    """The tree of these functions.

    Args:
        latents: of the autoencoder; by default those of Stable Diffusion's factor.
    """
    return denoiser, None if autoencoder is None else (autoencoder, latents), rules, jr.key(seed)


def drawn(tree: Any, example: dict[str, Array]) -> Float[Array, "height width channels"]:
    """An image in [-1, 1] of a label."""
    return decoded(tree, _generated(tree, example).x)


def counted(tree: Any, example: dict[str, Array]) -> tuple[Float[Array, "height width channels"], Int[Array, ""]]:
    """The image and the passes of the network."""
    found = _generated(tree, example)
    return decoded(tree, found.x), found.evaluations


def path(tree: Any, example: dict[str, Array]) -> Float[Array, "steps height width channels"]:
    """The images after each step."""
    return jax.lax.map(lambda x: decoded(tree, x), _generated(tree, example, trajectory=True).trajectory)


def condition_of(denoiser: Any, label: Int[Array, ""]) -> Int[Array, ""] | None:
    """The network's condition of a label, or of `NO_CLASS`; None for a network without classes."""
    null = denoiser.null_label
    return None if null is None else jnp.where(label == NO_CLASS, null, label)


def encoded(tree: Any, image: Float[Array, "height width channels"]) -> Float[Array, "*shape"]:
    """What is denoised of an image: itself, or the mean of its latents."""
    if tree[1] is None:
        return image
    autoencoder, latents = tree[1]
    mean = autoencoder.encode(image).mean
    return SCALE * mean if latents is None else latents.normalised(mean)


def decoded(tree: Any, x: Float[Array, "*shape"]) -> Float[Array, "height width channels"]:
    """The image of what is denoised."""
    if tree[1] is None:
        return x
    autoencoder, latents = tree[1]
    return in_float32(autoencoder).decode(x / SCALE if latents is None else latents.restored(x))


def _generated(tree: Any, example: dict[str, Array], *, trajectory: bool = False) -> Sample:
    denoiser, _, rules, key = tree
    label, key = condition_of(denoiser, example["label"]), jr.fold_in(key, example["index"])
    return generate(denoiser, rules, label, null=denoiser.null_label, key=key, trajectory=trajectory)
