"""DPM-Solver++ of several steps: 2M, 3M and their SDE forms."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen.diffusion.solvers.driver import Context, number
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.phi import phi

FEW = 15
"""Below this number of steps the last but one of 3M is of order 2."""


class Memory(NamedTuple):
    """x_0 and h of the last two steps, and the number of steps since the first with a finite h."""

    x0: Float[Array, "2 *shape"]
    h: Float[Array, "2"]
    kept: Int[Array, ""]


class DPMSolverMulti(eqx.Module):
    """DPM-Solver++(2M) and (3M): one evaluation a step (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    The last step is of order 1: x_0. Order 3 is as published in the authors' code, in diffusers and in k-diffusion,
    whose term of the second derivative has half its exact coefficient: its error falls as h². `exact=True` has the
    whole coefficient, and h³.

    Args:
        order: 1, 2 or 3.
        eta: of the SDE form, from 0 to 1, traced (k-diffusion's `dpmpp_2m_sde`, `dpmpp_3m_sde`; 1 is diffusers' 2M SDE.
            Its 3M SDE has one term of the wrong sign, which is not copied). None: the ODE, without a key.
        exact: see above.

    Raises:
        ValueError: order or eta is out of range.
    """

    eta: Float[Array, ""] | None
    order: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def __init__(self, order: int = 2, eta: float | Float[Array, ""] | None = None, *, exact: bool = False):
        if order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3: got {order}")
        self.eta = None if eta is None else number(eta, "eta", 0, 1)
        self.order, self.exact = order, exact

    @property
    def stochastic(self) -> bool:
        return self.eta is not None

    def init(self, x: Float[Array, "*shape"]) -> Memory:
        return Memory(jnp.zeros((2, *x.shape), x.dtype), jnp.ones(2, x.dtype), jnp.int32(0))

    def step(self, state: Memory, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Memory]:
        interval, x0 = Interval.of(context.schedule, t, s), context(x, t)
        h, endless = interval.h, interval.endless
        if self.eta is None:
            found, z = interval.line(x, x0), h
        else:
            z = h * (1 + self.eta)
            kept = jnp.where(endless, jnp.where(self.eta > 0, 0, 1), jnp.exp(h - z))  # of the old noise
            gain = jnp.where(endless, 1, -jnp.expm1(-z))
            found = interval.b.sigma / interval.a.sigma * kept * x + interval.b.alpha * gain * x0
            found += interval.b.sigma * jnp.sqrt((1 - kept) * (1 + kept)) * context.noise(interval, x)
        h, z = (jnp.where(endless, 1, number) for number in (h, z))
        found += jnp.where(endless, 0, interval.b.alpha * self._slopes(state, x0, h, z, context))
        new = Memory(
            jnp.stack([x0, state.x0[0]]),
            jnp.stack([h, state.h[0]]).astype(state.h.dtype),
            jnp.where(endless, 0, state.kept + 1),
        )
        return found, new

    def _slopes(self, state: Memory, x0: Array, h: Array, z: Array, context: Context) -> Array:
        """The terms of the first and second derivative of x_0; zero in the first step."""
        (last, before), (h_0, h_1), count = state
        second = (x0 - last) * (h / h_0)
        linear = z * phi(2, -z)
        half = -jnp.expm1(-z) / 2
        if self.order == 1:
            return jnp.zeros_like(x0)
        two = (half if self.order == 2 or self.eta is None else linear) * second
        if self.order == 2:
            return jnp.where(count > 0, two, 0)
        earlier = (last - before) * (h / h_1)
        bend = (second - earlier) * (h / (h_0 + h_1))
        slope = second + bend * (h_0 / h)
        three = linear * slope + (2 if self.exact else 1) * z * phi(3, -z) * bend
        if context.steps < FEW and self.eta is None and not self.exact:
            three = jnp.where(context.index == context.steps - 2, two, three)
        return jnp.where(count > 1, three, jnp.where(count > 0, two, 0))
