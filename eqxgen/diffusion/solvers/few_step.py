"""Steps of models that were trained for few of them."""

from typing import Any

import equinox as eqx
from jaxtyping import Array

from eqxgen.diffusion.solvers.driver import Context
from eqxgen.diffusion.solvers.interval import Interval


class AverageVelocity(eqx.Module):
    """x_t - (t - s) u of an average velocity u (Geng et al. 2025, arXiv:2505.13447, equation 12), also of
    shortcut.
    """

    averaged = True

    def init(self, x: Array) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        return x - (t - s) * context.average(x, t, s), None


class Consistency(eqx.Module):
    """x_0 with noise drawn anew (Song et al. 2023, arXiv:2303.01469, algorithm 1)."""

    stochastic = True

    def init(self, x: Array) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)
        return interval.b.diffuse(context(x, t), context.noise(interval, x)), None
