"""Penalties of a discriminator's gradients and logits, and of a generator's path lengths, in float32 at least.

A penalty differentiates a discriminator by its images inside a loss, so that its gradient is a second derivative.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.nn import _check

Judge = Callable[[Float[Array, "batch *shape"]], tuple[Float[Array, " batch"], Any]]
"""Images of a batch -> their logits, and anything beside them, such as model state."""


def slopes(
    judge: Judge, images: Float[Array, "batch *shape"]
) -> tuple[Float[Array, " batch"], Any, Float[Array, "batch *shape"]]:
    """Logits of a batch, what comes beside them, and the gradient of their sum by the images, in one pass.

    An augmentation inside `judge` is differentiated through, so that the gradient is at the images before it.
    """

    def total(images: Array) -> tuple[Array, tuple[Array, Any]]:
        logits, beside = judge(images)
        return jnp.sum(logits), (logits, beside)

    gradient, (logits, beside) = jax.grad(total, has_aux=True)(images)
    return logits, beside, gradient


def zero_centred(gradient: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """|gradient|² / 2 of each image, to be weighted by γ: R1 at real images, R2 at generated ones (Mescheder et al.
    2018, arXiv:1801.04406, equation 9).
    """
    return jnp.sum(widen(gradient) ** 2, axis=tuple(range(1, gradient.ndim))) / 2


def one_centred(gradient: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """(|gradient| - 1)² of each image, to be weighted by λ, 10 in the paper, at points between real and generated
    images (Gulrajani et al. 2017, arXiv:1704.00028, equation 3).
    """
    square = jnp.sum(widen(gradient) ** 2, axis=tuple(range(1, gradient.ndim)))
    # The root has no gradient at zero: there it is taken of 1 and replaced.
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return (length - 1) ** 2


def between(
    real: Float[Array, "batch *shape"], fake: Float[Array, "batch *shape"], share: Float[Array, " batch"]
) -> Float[Array, "batch *shape"]:
    """Points on the lines from real images (share 0) to generated ones (share 1).

    Raises:
        ValueError: the images have two shapes, or there is not a share for each.
    """
    _check.same_shape(real=real, fake=fake)
    _check.example(share, name="share", images=len(real))
    return real + share.reshape(-1, *(1,) * (real.ndim - 1)) * (fake - real)


def path_lengths(
    synthesis: Callable[[Float[Array, "batch layers dim"]], Float[Array, "batch height width channels"]],
    styles: Float[Array, "batch layers dim"],
    noise: Float[Array, "batch height width channels"],
) -> Float[Array, " batch"]:
    """|Jᵀ y| of each image, J the Jacobian of an image by its style vectors and y the noise over sqrt(pixels): the root
    of the mean over layers of the sum over entries (Karras et al. 2020, arXiv:1912.04958, equation 4).

    Args:
        noise: normal.
    """
    images, pull = jax.vjp(synthesis, styles)
    pixels = images.shape[1] * images.shape[2]
    slope = pull((noise / math.sqrt(pixels)).astype(images.dtype))[0]
    square = jnp.mean(jnp.sum(widen(slope) ** 2, axis=2), axis=1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def path_penalty(
    lengths: Float[Array, " batch"], mean: Float[Array, ""], average: Float[Array, ""], *, decay: float = 0.01
) -> tuple[Float[Array, " batch"], Float[Array, ""]]:
    """(length - a)² of each image, and a, the running mean of lengths.

    Args:
        mean: running mean before; 0 at first.
        average: mean length over the whole batch, on all devices.
        decay: share of the new batch in the running mean. It is differentiated through, as published.

    Raises:
        ValueError: a mean is no scalar.
    """
    for name, value in {"mean": mean, "average": average}.items():
        if jnp.ndim(value):
            raise ValueError(f"{name} must be a scalar: got shape {jnp.shape(value)}")
    mean = mean + decay * (average - mean)
    return (lengths - mean) ** 2, jax.lax.stop_gradient(mean)


class Anchors(NamedTuple):
    """Moving averages of the discriminator's logits: of real examples, and of made ones."""

    real: Float[Array, ""]
    made: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Anchors":
        """Before the first batch."""
        return cls(jnp.zeros(()), jnp.zeros(()))

    def moved(self, real: Float[Array, ""], made: Float[Array, ""], decay: float = 0.99) -> "Anchors":
        """After a batch of these mean logits."""
        blend = lambda old, new: decay * old + (1 - decay) * jax.lax.stop_gradient(new).astype(old.dtype)
        return Anchors(blend(self.real, real), blend(self.made, made))


def lecam_penalty(
    on_real: Float[Array, "*batch"], on_fake: Float[Array, "*batch"], anchors: Anchors
) -> Float[Array, "*batch"]:
    """max(0, D(real) - anchor of made)² + max(0, anchor of real - D(made))², which holds the two sets of logits close
    where data are few (Tseng et al. 2021, arXiv:2104.03310, equation 4, in the one-sided form of the authors' code).
    """
    _check.same_shape(on_real=on_real, on_fake=on_fake)
    real, made = (jax.lax.stop_gradient(anchor) for anchor in anchors)
    return jax.nn.relu(on_real - made) ** 2 + jax.nn.relu(real - on_fake) ** 2
