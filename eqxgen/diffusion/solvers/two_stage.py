"""Solvers of two evaluations a step: Heun, DPM2, DPM-Solver++ 2S, and Heun in the time of the schedule.

The last step, to sigma 0, is the first-order one, of one evaluation. So is the first step from a level without signal,
except in `FlowHeun`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Schedule
from eqxgen.diffusion.solvers.driver import Context
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.renewed import Renewed


class Heun(eqx.Module):
    """Heun's second-order step in sigma / alpha (Karras et al. 2022, arXiv:2206.00364, algorithm 1)."""

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)
        x0 = context(x, t)
        first = interval.line(x, x0)

        def correct(context: Context) -> Array:
            (start, end), slope = interval.ratios, interval.noise(x, x0)
            last = (first - interval.b.alpha * context(first, s)) / interval.b.sigma
            return first + interval.b.alpha * (end - start) / 2 * (last - slope)

        return context.when(~interval.endless, correct, first), None


class DPM2(Renewed):
    """DPM-Solver-2: the slope of the step's middle in log sigma / alpha (Karras et al. 2022, algorithm 2 without churn;
    Lu et al. 2022, arXiv:2206.00927, algorithm 1).

    Args:
        eta: of the ancestral form, from 0 to 1, traced: part of the posterior's deviation that is fresh noise. None:
            deterministic, without a key.

    Raises:
        ValueError: eta is out of range.
    """

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)
        x0 = context(x, t)
        renewed = 0 if self.eta is None else self.eta**2 * interval.gain * (1 + interval.decay)
        start, end = interval.ratios
        down = end * jnp.sqrt(1 - renewed)

        def correct(context: Context) -> Array:
            middle = jnp.sqrt(start * down)
            at = context.schedule.time(middle)
            half = Interval.of(context.schedule, t, at)
            there = half.line(x, x0)
            slope = (there - half.b.alpha * context(there, at)) / half.b.sigma
            return interval.b.alpha * (x / interval.a.alpha + (down - start) * slope)

        x_b = context.when(~interval.endless, correct, interval.line(x, x0))
        if self.eta is None:
            return x_b, None
        return x_b + interval.b.sigma * jnp.sqrt(renewed) * context.noise(interval, x), None


class DPMSolver2S(Renewed):
    """DPM-Solver++(2S), and its SDE form: x_0 of the step's middle in log (alpha / sigma) (Lu et al. 2022,
    arXiv:2211.01095, algorithm 1; the SDE form as k-diffusion's `dpmpp_sde`, which draws in both halves).

    Args:
        eta: of the SDE form, from 0 to 1, traced. None: deterministic, without a key.

    Raises:
        ValueError: eta is out of range.
    """

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)
        x0 = context(x, t)
        start, end = interval.ratios
        at = context.schedule.time(jnp.sqrt(start * end))
        half = Interval.of(context.schedule, t, at)
        if self.eta is None:
            correct = lambda context: context(half.line(x, x0), at)
            return interval.line(x, context.when(~interval.endless, correct, x0)), None
        eta, fresh, whole = self.eta, context.noise(half, x), context.noise(interval, x)
        correct = lambda context: context(half.jump(x, x0, eta, fresh), at)
        return interval.jump(x, context.when(~interval.endless, correct, x0), eta, whole), None


class FlowEuler(eqx.Module):
    """Euler's step in the time of the schedule, along its velocity alpha' x_0 + sigma' noise.

    For `Flow` it is Euler's step of flow matching (Lipman et al. 2023, arXiv:2210.02747; Esser et al. 2024,
    arXiv:2403.03206), as `Euler` is too. The last step, to sigma 0, is x_0.
    """

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        x0 = context(x, t)
        moved = x + (s - t) * velocity(context.schedule, x, x0, t)
        return jnp.where(context.schedule(s).sigma == 0, x0, moved), None


class FlowHeun(eqx.Module):
    """Heun's step in the time of the schedule: for `Flow` that of flow matching, for `VE` EDM's, which is `Heun` too
    (Karras et al. 2022, algorithm 1, with its s(t) and sigma(t)). It may start at a level without signal.
    """

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        x0 = context(x, t)
        slope = velocity(context.schedule, x, x0, t)
        first = x + (s - t) * slope

        def correct(context: Context) -> Array:
            last = velocity(context.schedule, first, context(first, s), s)
            return x + (s - t) / 2 * (slope + last)

        return context.when(context.schedule(s).sigma > 0, correct, x0), None


def velocity(
    schedule: Schedule, x: Float[Array, "*shape"], x0: Float[Array, "*shape"], t: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """dx / dt of the probability flow at a time above 0."""
    level, slope = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return slope.alpha * x0 + slope.sigma * (x - level.alpha * x0) / level.sigma
