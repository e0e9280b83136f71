"""EDM's stochastic sampler: noise is added before each step of a solver."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.solvers.driver import Context, Solver, number
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.two_stage import Heun


def _positive(name: str):
    return lambda value: number(value, name, 0, math.inf)


class Churn(eqx.Module):
    """Raises the level of x to sigma-hat, then takes a solver's step from there (Karras et al. 2022, algorithm 2).

    sigma-hat is the time of the whole inner step: both evaluations of Heun's are of the raised level. Levels are sigma
    / alpha. A schedule is raised to its end at most.

    Args:
        solver: of one step without memory, Heun's by default.
        churn: S_churn, at least 0: sigma rises by churn / steps of itself, at most by √2 - 1.
        low, high: S_min and S_max: levels outside are not raised.
        noise: S_noise, deviation of the added noise.

    Raises:
        ValueError: a number is negative, or low is above high.
    """

    solver: Solver = Heun()
    churn: Float[Array, ""] = eqx.field(default=40.0, converter=_positive("churn"))
    low: Float[Array, ""] = eqx.field(default=0.05, converter=_positive("low"))
    high: Float[Array, ""] = eqx.field(default=50.0, converter=_positive("high"))
    noise: Float[Array, ""] = eqx.field(default=1.003, converter=_positive("noise"))

    stochastic = True

    def __check_init__(self):
        known = not any(isinstance(number, Tracer) for number in (self.low, self.high))
        if known and self.low > self.high:
            raise ValueError(f"low must be at most high: got low={float(self.low):g}, high={float(self.high):g}")

    @property
    def learned(self) -> bool:
        return getattr(self.solver, "learned", False)

    def init(self, x: Float[Array, "*shape"]) -> Any:
        return self.solver.init(x)

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        level = context.schedule(t)
        ratio = level.ratio
        raised = (ratio >= self.low) & (ratio <= self.high)
        gamma = jnp.where(raised, jnp.minimum(self.churn / context.steps, math.sqrt(2) - 1), 0)
        hat = jnp.where(gamma > 0, context.schedule.time(ratio * (1 + gamma)), t)
        hat = jnp.minimum(hat, jnp.maximum(t, context.schedule.end))
        there = context.schedule(hat)
        scale = jnp.where(hat == t, 1, there.alpha / level.alpha)
        added = jnp.sqrt(jnp.maximum(there.sigma**2 - (scale * level.sigma) ** 2, 0)) * self.noise
        fresh = context.noise(Interval(Level(there.alpha, there.sigma), level), x)
        return self.solver.step(state, scale * x + added * fresh, hat, s, context)
