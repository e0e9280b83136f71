"""Linear multistep solvers: slopes of the last steps, weighted. One evaluation a step.

In sigma / alpha the probability flow is dy / dρ = noise, with y = x / alpha. Each solver weighs the noise of up to four
steps so that the weights of one add up to the step's length:

    LMS    polynomial in ρ through the slopes, integrated (Adams and Bashforth; k-diffusion)
    DEIS   polynomial in log ρ (Zhang and Chen 2023, arXiv:2204.13902, the log-ρ multistep of diffusers)
    PNDM   constants of equal steps, and a first step of two evaluations (Liu et al. 2022, arXiv:2202.09778)
    IPNDM  the same without the first step's second evaluation (Zhang and Chen 2023, appendix)
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from eqxgen.diffusion.solvers.dpmsolver import FEW
from eqxgen.diffusion.solvers.driver import Context
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.phi import lagrange

MOST = 4
NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
EQUAL = np.asarray(
    [[1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
)
"""Weights of Adams and Bashforth for 1 to 4 equal steps."""


class Memory(NamedTuple):
    """Noise and ratio of the last steps, the newest first, and the number of those that are kept."""

    slopes: Float[Array, "most *shape"]
    ratios: Float[Array, " most"]
    kept: Int[Array, ""]


class Adams(eqx.Module):
    """Base of the linear multistep solvers.

    Args:
        order: steps that are weighed, from 1 to 4.
        data_end: whether the last step, to sigma 0, is x_0; otherwise it is the weighed step as published, which
            leaves some noise.

    Raises:
        ValueError: order is out of range.
    """

    order: int = eqx.field(static=True, default=4)
    data_end: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if not 1 <= self.order <= MOST:
            raise ValueError(f"order must be from 1 to {MOST}: got {self.order}")

    def weights(self, ratios: Array, used: Bool[Array, " most"], end: Array) -> Float[Array, " most"]:
        """Weights of the slopes over the step from the newest ratio to `end`."""
        raise NotImplementedError

    def init(self, x: Float[Array, "*shape"]) -> Memory:
        return Memory(jnp.zeros((MOST, *x.shape), x.dtype), jnp.ones(MOST, x.dtype), jnp.int32(0))

    def step(self, state: Memory, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Memory]:
        interval, x0 = Interval.of(context.schedule, t, s), context(x, t)
        slope = interval.noise(x, x0)
        silent = interval.a.alpha == 0
        ratio = interval.a.sigma / jnp.where(silent, 1, interval.a.alpha)
        newest = lambda first, rest: jnp.concatenate([first[None].astype(rest.dtype), rest[:-1]])
        count = jnp.where(silent, 0, jnp.minimum(state.kept + 1, MOST))
        new = Memory(newest(slope, state.slopes), newest(ratio, state.ratios), count)
        used = jnp.arange(MOST) < jnp.minimum(count, self._order_now(context))
        weights = self.weights(new.ratios, used, interval.b.ratio)
        bend = jnp.tensordot(weights[1:].astype(x.dtype), new.slopes[1:] - slope[None], 1)
        straight = silent | (self.data_end & (interval.b.sigma == 0))
        return interval.line(x, x0) + jnp.where(straight, 0, interval.b.alpha * bend), new

    def _order_now(self, context: Context) -> Int[Array, ""] | int:
        """The largest order of the step."""
        return self.order


class LMS(Adams):
    """Linear multistep solver in sigma / alpha (k-diffusion's `lms`; Karras et al. 2022, appendix).

    Args:
        order: from 1 to 4.
        data_end: see `Adams`; False as published.
    """

    def weights(self, ratios: Array, used: Bool[Array, " most"], end: Array) -> Float[Array, " most"]:
        points, parts = _gauss(ratios[0], end)
        return lagrange(ratios, used, points) @ parts


class DEIS(Adams):
    """Exponential multistep solver, polynomial in log ρ. The last step is x_0.

    Args:
        order: from 1 to 4; published are 1 to 3. As published, of fewer than 15 steps the last
            are of order 3, 2 and 1.
    """

    order: int = eqx.field(static=True, default=2)

    def weights(self, ratios: Array, used: Bool[Array, " most"], end: Array) -> Float[Array, " most"]:
        nodes = jnp.log(ratios)
        points, parts = _gauss(nodes[0], jnp.log(jnp.where(end > 0, end, ratios[0])))
        return lagrange(nodes, used, points) @ (parts * jnp.exp(points))

    def _order_now(self, context: Context) -> Int[Array, ""] | int:
        left = context.steps - context.index
        return jnp.minimum(self.order, left if context.steps < FEW else self.order)


class IPNDM(Adams):
    """Multistep solver with the weights of equal steps: first order with the third and fourth's constants.

    Args:
        order: from 1 to 4.
        data_end: see `Adams`; False as published.
    """

    def weights(self, ratios: Array, used: Bool[Array, " most"], end: Array) -> Float[Array, " most"]:
        row = jnp.asarray(EQUAL, ratios.dtype)[jnp.maximum(jnp.sum(used) - 1, 0)]
        return (end - ratios[0]) * row


class PNDM(IPNDM):
    """PLMS (Liu et al. 2022, algorithm 2 without its Runge-Kutta warm-up, as Stable Diffusion has it): the first step
    is Heun's, of two evaluations, then `IPNDM`.

    Args:
        order: from 1 to 4.
        data_end: see `Adams`; False as published.
    """

    def step(self, state: Memory, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Memory]:
        interval = Interval.of(context.schedule, t, s)
        found, new = super().step(state, x, t, s, context)

        def correct(context: Context) -> Array:
            (start, end), b = interval.ratios, interval.b
            last = (found - b.alpha * context(found, s)) / b.sigma
            return found + b.alpha * (end - start) / 2 * (last - new.slopes[0])

        return context.when((state.kept == 0) & ~interval.endless, correct, found), new


def _gauss(start: Array, end: Array) -> tuple[Array, Array]:
    """Points and weights of the integral from start to end, exact for polynomials of degree 15."""
    nodes, weights = (jnp.asarray(array, start.dtype) for array in (NODES, WEIGHTS))
    half = (end - start) / 2
    return start + half * (nodes + 1), half * weights
