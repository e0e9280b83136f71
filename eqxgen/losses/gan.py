"""Adversarial losses of logits, and penalties of gradients. A positive logit means real.

form             generator                discriminator                              source
non_saturating   softplus(-f)             softplus(-r) + softplus(f)                 Goodfellow et al. 2014, 1406.2661
hinge            -f                       relu(1 - r) + relu(1 + f)                  Lim and Ye 2017, 1705.02894
least_squares    (f - 1)² / 2             ((r - 1)² + f²) / 2                        Mao et al. 2016, 1611.04076
wasserstein      -f                       f - r                                      Arjovsky et al. 2017, 1701.07875
relativistic     softplus(-(f - r))       softplus(-(r - f))                        Jolicoeur-Martineau 2018, 1807.00734

r and f are the logits of a real and of a generated image; those of `relativistic` are pairs. Everything is computed in
float32 at least. A penalty differentiates a discriminator by its images inside a loss, so that its gradient is a second
derivative.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.nn import _check

Logits = Float[Array, "*batch"]
Judge = Callable[[Float[Array, "batch *shape"]], tuple[Float[Array, " batch"], Any]]
"""Images of a batch -> their logits, and anything beside them, such as model state."""


class Objective(NamedTuple):
    """The losses of one form.

    Attributes:
        generator: (logits of generated images, logits of real ones) -> losses.
        discriminator: (logits of real images, logits of generated ones) -> losses.
        paired: the generator's loss needs the logits of real images.
    """

    generator: Callable[[Logits, Logits | None], Logits]
    discriminator: Callable[[Logits, Logits], Logits]
    paired: bool = False


def _minus(first: Array, second: Array | None) -> Array:
    if second is None:
        raise ValueError("on_real must be given for the form relativistic, whose losses are of pairs: got None")
    _check.same_shape(on_fake=first, on_real=second)
    return widen(first) - widen(second)


OBJECTIVES = {
    "non_saturating": Objective(
        lambda fake, real: jax.nn.softplus(-widen(fake)),
        lambda real, fake: jax.nn.softplus(-widen(real)) + jax.nn.softplus(widen(fake)),
    ),
    "hinge": Objective(
        lambda fake, real: -widen(fake), lambda real, fake: jax.nn.relu(1 - widen(real)) + jax.nn.relu(1 + widen(fake))
    ),
    "least_squares": Objective(
        lambda fake, real: (widen(fake) - 1) ** 2 / 2,
        lambda real, fake: ((widen(real) - 1) ** 2 + widen(fake) ** 2) / 2,
    ),
    "wasserstein": Objective(lambda fake, real: -widen(fake), lambda real, fake: widen(fake) - widen(real)),
    "relativistic": Objective(
        lambda fake, real: jax.nn.softplus(-_minus(fake, real)),
        lambda real, fake: jax.nn.softplus(-_minus(real, fake)),
        paired=True,
    ),
}
"""Forms of the losses by name."""


def objective(form: str) -> Objective:
    """The losses of a form.

    Raises:
        ValueError: the form is none of `OBJECTIVES`; of the losses: the logits have two shapes.
    """
    if form not in OBJECTIVES:
        raise ValueError(f"form must be one of {', '.join(OBJECTIVES)}: got {form!r}")
    found = OBJECTIVES[form]

    def discriminator(on_real: Logits, on_fake: Logits) -> Logits:
        _check.same_shape(on_real=on_real, on_fake=on_fake)
        return found.discriminator(on_real, on_fake)

    return found._replace(discriminator=discriminator)


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
