"""Denoisers guided by the gradient of a number: of a classifier, or of a model that matches image and text.

x_0 = denoised + scale · sigma² / alpha · gradient by x_t of the number: Tweedie's formula of the tilted density.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.diffusion.guidance.rules import scale_of
from eqxgen.diffusion.guidance.wrapped import Wrapped
from eqxgen.protocols import Denoiser


class Gradient(Wrapped):
    """Base: a denoiser and a number of x_t that should rise. The passes of the classifier are not counted."""

    number: Callable
    scale: Float[Array, ""] = eqx.field(converter=scale_of)


class Classifier(Gradient):
    """See `classifier`."""

    denoiser_condition: bool = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*shape"]:
        given = condition if self.denoiser_condition else None
        x0 = self.denoiser(x, t, given, key=key, inference=inference)
        level = self.schedule(t)
        slope = jax.grad(lambda x: self.number(x, t, condition))(x)
        return x0 + (self.scale * level.sigma**2 / jnp.maximum(level.alpha, 1e-12) * slope).astype(x0.dtype)


class Matching(Gradient):
    """See `matching`."""

    target: Any
    through: bool = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*shape"]:
        level = self.schedule(t)
        estimate = lambda x: self.denoiser(x, t, condition, key=key, inference=inference)
        score = lambda x0: self.number(x0, self.target)
        if self.through:
            slope, x0 = jax.grad(lambda x: (lambda x0: (score(x0), x0))(estimate(x)), has_aux=True)(x)
        else:
            x0 = estimate(x)
            slope = jax.grad(score)(x0) * level.alpha / (level.alpha**2 + level.sigma**2)
        return x0 + (self.scale * level.sigma**2 / jnp.maximum(level.alpha, 1e-12) * slope).astype(x0.dtype)


def classifier(
    denoiser: Denoiser,
    log_probability: Callable[[Array, Array, Any], Array],
    scale: float | int | Float[Array, ""],
    *,
    conditional: bool = False,
) -> Classifier:
    """Classifier guidance (Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 1).

    Args:
        denoiser: of the images.
        log_probability: log p(condition | x_t) of `(x, t, condition)`: a classifier of noised images.
        scale: 1 samples the condition's images if both are exact; 0 is none.
        conditional: whether the denoiser is given the condition too.

    Raises:
        ValueError: the scale is negative.
    """
    return Classifier(denoiser, log_probability, scale, conditional)


def matching(
    denoiser: Denoiser,
    score: Callable[[Array, Any], Array],
    target: Any,
    scale: float | int | Float[Array, ""],
    *,
    through: bool = True,
) -> Matching:
    """Guidance by a model that matches a clean image and a target, such as a text (Nichol et al. 2022, 2112.10741,
    section 2.4; on the denoised image: Bansal et al. 2023, arXiv:2302.07121).

    Args:
        denoiser: of the images.
        score: number of `(x_0, target)` that should rise, such as a cosine similarity.
        target: an array or tree of them.
        scale: traced; 0 is none.
        through: whether the gradient passes through the denoiser. Without, its Jacobian is taken for that of unit
            normal data, at a third of the cost.

    Raises:
        ValueError: the scale is negative.
    """
    return Matching(denoiser, score, scale, target, through)
