"""Images of a denoiser: functions of one example, for `train.evaluators.stream.Stream`.

Their tree is (denoiser, autoencoder or None, `eqxgen.diffusion.generate.Rules`, key). Image i depends on the key, i and
its label alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from eqxgen.diffusion.generate import generate
from eqxgen.diffusion.solvers import Sample

from .latents import SCALE

NO_CLASS = -1
"""Label of an image without one."""


def tree_of(denoiser: Any, autoencoder: Any, rules: Any, seed: int) -> Any:
    """The tree of these functions."""
    return denoiser, autoencoder, rules, jr.key(seed)


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
    autoencoder = tree[1]
    return image if autoencoder is None else SCALE * autoencoder.encode(image).mean


def decoded(tree: Any, x: Float[Array, "*shape"]) -> Float[Array, "height width channels"]:
    """The image of what is denoised."""
    autoencoder = tree[1]
    return x if autoencoder is None else autoencoder.decode(x / SCALE)


def _generated(tree: Any, example: dict[str, Array], *, trajectory: bool = False) -> Sample:
    denoiser, _, rules, key = tree
    label, key = condition_of(denoiser, example["label"]), jr.fold_in(key, example["index"])
    return generate(denoiser, rules, label, null=denoiser.null_label, key=key, trajectory=trajectory)
