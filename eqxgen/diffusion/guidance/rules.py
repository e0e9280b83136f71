"""Rules of guidance: one x_0 of a good and a weak one.

Scale 1 is the good denoiser alone, as in EDM2; papers with weight w of the difference have w = scale - 1.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.solvers.driver import number
from eqxgen.diffusion.views import view_of, x0_of


def scale_of(value: Any) -> Float[Array, ""]:
    """A traced scale, at least 0."""
    return number(value, "scale", 0, math.inf)


class Linear(eqx.Module):
    """weak + scale · (good - weak) (Ho and Salimans 2022, arXiv:2207.12598).

    Args:
        scale: traced.
        rescale: from 0 to 1, traced: share of an estimate whose deviation is the good one's (Lin et al. 2024,
            arXiv:2305.08891, equations 15 and 16). None: 0.
        view: in which the deviations are compared: the network's, epsilon by default.
    """

    scale: Float[Array, ""] = eqx.field(converter=scale_of)
    rescale: Float[Array, ""] | None = eqx.field(
        default=None, converter=lambda value: None if value is None else number(value, "rescale", 0, 1)
    )
    view: str = eqx.field(static=True, default="epsilon")

    def __call__(self, x: Array, good: Array, weak: Array, level: Level, t: Array) -> Array:
        guided = weak + self.scale * (good - weak)
        if self.rescale is None:
            return guided
        seen, aim = (view_of(self.view, x, x0, level) for x0 in (guided, good))
        rescaled = seen * (jnp.std(aim) / jnp.std(seen))
        return x0_of(self.view, self.rescale * rescaled + (1 - self.rescale) * seen, x, level)


class Projected(eqx.Module):
    """Adaptive projected guidance (Sadat et al. 2025, arXiv:2410.02416, algorithm 1).

    Args:
        scale: traced.
        eta: share that is kept of the difference's part along the good x_0, traced.
        norm: largest norm of the difference, traced; 0 for any.
        momentum: in (-1, 1), traced: times the difference of the step before, added to that of a step. None: none, and
            no memory. Of a step with several evaluations the first is remembered, and each is given the same memory.
    """

    scale: Float[Array, ""] = eqx.field(converter=scale_of)
    eta: Float[Array, ""] = eqx.field(default=0.0, converter=lambda value: number(value, "eta", 0, 1))
    norm: Float[Array, ""] = eqx.field(default=0.0, converter=lambda value: number(value, "norm", 0, math.inf))
    momentum: Float[Array, ""] | None = eqx.field(
        default=None, converter=lambda value: None if value is None else number(value, "momentum", -0.999, 0.999)
    )

    def difference(self, good: Array, weak: Array, memory: Array | None) -> Array:
        """The difference of the two with that of the step before.

        Raises:
            ValueError: there is momentum, and no memory.
        """
        if self.momentum is None:
            return good - weak
        if memory is None:
            raise ValueError("momentum must be None: what calls the denoiser has no memory, unlike `sample`")
        return good - weak + self.momentum * memory

    def __call__(
        self, x: Array, good: Array, weak: Array, level: Level, t: Array, memory: Array | None = None
    ) -> Array:
        apart = self.difference(good, weak, memory)
        size = jnp.sqrt(jnp.sum(jnp.square(apart)))
        bounded = jnp.minimum(1, self.norm / jnp.maximum(size, 1e-12))
        apart = apart * jnp.where(self.norm > 0, bounded, 1)
        along = jnp.sum(apart * good) / jnp.maximum(jnp.sum(jnp.square(good)), 1e-12) * good
        return good + (self.scale - 1) * (apart - along + self.eta * along)


class Zero(eqx.Module):
    """CFG-Zero* (Fan et al. 2025, arXiv:2503.18886): the weak velocity is first scaled to be closest to the good,
    and early steps may have no velocity.

    Args:
        scale: traced.
        start: times above it have velocity 0, traced. None: no such times. In a schedule whose velocity is noise - x_0.
    """

    scale: Float[Array, ""] = eqx.field(converter=scale_of)
    start: Float[Array, ""] | None = eqx.field(
        default=None, converter=lambda value: None if value is None else number(value, "start", 0, math.inf)
    )

    def __call__(self, x: Array, good: Array, weak: Array, level: Level, t: Array) -> Array:
        good, weak = (view_of("velocity", x, x0, level) for x0 in (good, weak))
        best = jnp.sum(good * weak) / (jnp.sum(jnp.square(weak)) + 1e-8)
        guided = best * weak + self.scale * (good - best * weak)
        if self.start is not None:
            guided = jnp.where(t > self.start, 0, guided)
        return x0_of("velocity", guided, x, level)


Rule = Linear | Projected | Zero
