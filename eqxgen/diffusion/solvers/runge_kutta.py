"""Runge-Kutta solvers in the angle of the level: RK4, and RK45 of adaptive steps.

With θ = atan2(sigma, alpha), z = x / √(alpha² + sigma²) obeys dz / dθ = cos θ noise - sin θ x_0, which is v (Salimans
and Ho 2022, arXiv:2202.00512, appendix D). It is finite for every schedule, from a level without signal to any above
data. The last step, to sigma 0, is x_0.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.solvers.driver import Context, cost, number
from eqxgen.diffusion.solvers.interval import Interval

# Dormand and Prince 1980, table 2.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def angle(level: Level) -> Float[Array, "*shape"]:
    """atan2(sigma, alpha), in [0, π / 2]."""
    return jnp.arctan2(level.sigma, level.alpha)


def slope(context: Any, z: Float[Array, "*shape"], theta: Float[Array, ""], t: Float[Array, ""] | None = None) -> Array:
    """dz / dθ: v of z at an angle, whose time is `t` where it is known."""
    t = context.schedule.time(jnp.tan(theta)) if t is None else t
    alpha, sigma = context.schedule(t)
    norm = jnp.hypot(alpha, sigma)
    x0 = context(norm * z, t)
    return (alpha / norm) * (norm * z - alpha * x0) / sigma - sigma / norm * x0


class RK4(eqx.Module):
    """The classical Runge-Kutta step: order 4, four evaluations."""

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)
        norm, start, end = jnp.hypot(*interval.a), angle(interval.a), angle(interval.b)
        x0, z, step = context(x, t), x / norm, end - start
        k1 = interval.a.alpha / norm * interval.noise(x, x0) - interval.a.sigma / norm * x0

        def correct(context: Context) -> Array:
            middle = context.schedule.time(jnp.tan(start + step / 2))
            k2 = slope(context, z + step / 2 * k1, start, middle)
            k3 = slope(context, z + step / 2 * k2, start, middle)
            k4 = slope(context, z + step * k3, end, s)
            return jnp.hypot(*interval.b) * (z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4))

        return context.when(interval.b.sigma > 0, correct, x0), None


class RK45(eqx.Module):
    """Dormand and Prince's pair of orders 5 and 4: each step of the grid is divided until its error is small.

    Six evaluations a trial, counted as they happen. The probability flow of Song et al. 2021 (arXiv:2011.13456, section
    4.3) is solved so. A grid of noise, a small level and 0 leaves the steps to the solver. Under `vmap` every example
    has steps of its own, and the batch takes the time of the slowest.

    Args:
        relative, absolute: tolerances of the root of the mean squared error of z, traced.
        trials: most trials of one step of the grid; after them x is NaN.

    Raises:
        ValueError: a tolerance is negative, or trials is below 1.
    """

    relative: Float[Array, ""] = eqx.field(default=1e-3, converter=lambda x: number(x, "relative", 0, 1))
    absolute: Float[Array, ""] = eqx.field(default=1e-3, converter=lambda x: number(x, "absolute", 0, jnp.inf))
    trials: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1: got {self.trials}")

    def init(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The first trial's length: a hundredth of a quarter turn."""
        return jnp.full((), 0.01 * jnp.pi / 2, x.dtype)

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)

        def solve(context: Context) -> tuple[Array, Array]:
            a, b = interval
            found, spent, length = self._solve(context, x / jnp.hypot(*a), angle(a), angle(b), state, t)
            context.spent += spent
            return (jnp.hypot(*b) * found).astype(x.dtype), length

        last = context.when(interval.b.sigma == 0, lambda context: context(x, t), x)
        return context.when(interval.b.sigma > 0, solve, (last, state))

    def _solve(self, context: Context, z: Array, theta: Array, end: Array, length: Array, t: Array) -> tuple:
        """z at an angle below, the passes spent, and the next trial's length."""
        theta, end = theta.astype(z.dtype), end.astype(z.dtype)

        def passes(places: list) -> Array:
            return sum((jnp.asarray(cost(context.denoiser, place), jnp.int32) for place in places), jnp.int32(0))

        def trial(state: tuple) -> tuple:
            z, theta, k1, length, spent, trials = state
            step = -jnp.minimum(length, theta - end)
            final = theta + step <= end
            slopes, places, new = [k1], [], z
            for node, row in zip(NODES, STAGES):
                at = jnp.where(final & (node == 1), end, theta + node * step)
                new = z + step * sum(w * k for w, k in zip(row, slopes) if w)
                slopes.append(slope(context, new, at))
                places.append(context.schedule.time(jnp.tan(at)))
            error = step * sum(w * k for w, k in zip(ERROR, slopes) if w)
            scale = self.absolute + self.relative * jnp.maximum(jnp.abs(z), jnp.abs(new))
            size = jnp.sqrt(jnp.mean(jnp.square(error / scale)))
            good = size <= 1
            factor = jnp.clip(0.9 * jnp.maximum(size, 1e-10) ** -0.2, 0.2, 10)
            # A last step, cut to the end, says nothing of a longer one's error.
            length = jnp.where(good & final & (-step < length), length, (-step * factor).astype(length.dtype))
            keep = lambda new, old: jnp.where(good, new, old).astype(old.dtype)
            after = keep(new, z), keep(jnp.where(final, end, theta + step), theta), keep(slopes[-1], k1)
            return *after, length, spent + passes(places), trials + 1

        going = lambda state: (state[1] > end) & (state[5] < self.trials)
        before = context.spent
        first = z, theta, slope(context, z, theta, t).astype(z.dtype), length, passes([t]), jnp.int32(0)
        seen = context.seen
        z, theta, _, length, spent, _ = jax.lax.while_loop(going, trial, first)
        context.spent, context.seen = before, seen  # the loop's own count is what was spent
        return jnp.where(theta > end, jnp.nan, z), spent, length
