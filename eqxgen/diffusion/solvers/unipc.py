"""UniPC: a multistep predictor and a corrector that shares its evaluations."""

import math
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.solvers.driver import Context
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.phi import phi, vandermonde


class Memory(NamedTuple):
    """x_0 of the last steps and log (alpha / sigma) up to each, newest first; x before the last step; orders.

    Attributes:
        x0: of the steps before this one.
        h: length in log (alpha / sigma) of the steps before this one.
        x: corrected, at the start of the step before.
        level: of that x.
        kept: steps since the first with a finite length.
        order: of the step before.
    """

    x0: Float[Array, "most *shape"]
    h: Float[Array, " most"]
    x: Float[Array, "*shape"]
    level: Level
    kept: Int[Array, ""]
    order: Int[Array, ""]


class UniPC(eqx.Module):
    """UniPC of x_0: one evaluation a step (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 8).

    The evaluation at a step's end corrects that step and begins the next. A predictor of order p with its corrector has
    order p + 1. The last steps fall to order 1, the last is x_0, as in diffusers.

    Args:
        order: 1, 2 or 3.
        kind: bh1, B(h) = h; bh2, B(h) = exp(h) - 1.
        corrector: False for the predictor alone.

    Raises:
        ValueError: order or kind is out of range.
    """

    order: int = eqx.field(static=True, default=2)
    kind: Literal["bh1", "bh2"] = eqx.field(static=True, default="bh2")
    corrector: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3: got {self.order}")
        if self.kind not in ("bh1", "bh2"):
            raise ValueError(f"kind must be bh1 or bh2: got {self.kind!r}")

    def init(self, x: Float[Array, "*shape"]) -> Memory:
        one = jnp.ones((), x.dtype)
        histories = jnp.zeros((self.order, *x.shape), x.dtype), jnp.ones(self.order, x.dtype)
        return Memory(*histories, x, Level(one, one), jnp.int32(0), jnp.int32(0))

    def step(self, state: Memory, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Memory]:
        interval, x0 = Interval.of(context.schedule, t, s), context(x, t)
        if self.corrector:
            x = jnp.where(state.kept > 0, self._corrected(state, x0, interval.a), x)
        endless = interval.endless
        left = context.steps - context.index
        order = jnp.where(endless, 1, jnp.minimum(jnp.minimum(self.order, left), state.kept + 1))
        h = jnp.where(endless, 1, interval.h)
        weights = self._weights(h, state.h, order, corrects=False)
        bend = jnp.tensordot(weights.astype(x.dtype), state.x0 - x0[None], 1)
        found = interval.line(x, x0) + jnp.where(endless, 0, interval.b.alpha * bend)
        newest = lambda first, rest: jnp.concatenate([first[None].astype(rest.dtype), rest[:-1]])
        level = Level(*(number.astype(x.dtype) for number in interval.a))
        count = jnp.where(endless, 0, state.kept + 1)
        return found, Memory(newest(x0, state.x0), newest(h, state.h), x, level, count, order)

    def _corrected(self, state: Memory, x0: Array, here: Level) -> Array:
        """x at the start of this step, from the step before, its x_0 and that of this step."""
        interval, h = Interval(state.level, here), state.h[0]
        before = state.x0[0]
        # Nodes of the step before: the steps before it, and its own end.
        weights = self._weights(h, state.h[1:], state.order, corrects=True)
        bend = jnp.tensordot(weights[:-1].astype(x0.dtype), state.x0[1:] - before[None], 1) if self.order > 1 else 0
        return interval.line(state.x, before) + here.alpha * (bend + weights[-1] * (x0 - before))

    def _weights(self, h: Array, lengths: Array, order: Array, *, corrects: bool) -> Array:
        """Weights of x_0 of the steps before, less this step's, and of the step's end for a corrector, divided by
        alpha.
        """
        moments = [math.factorial(i) * -h * phi(i + 1, -h) for i in range(1, self.order + 1)]
        scale = -h if self.kind == "bh1" else jnp.expm1(-h)
        nodes = [-jnp.sum(lengths[: i + 1]) / h for i in range(self.order - 1)]
        one = jnp.ones_like(h)
        rows = []
        for p in range(1, self.order + 1):
            inner = nodes[: p - 1]
            if corrects:
                found = [one / 2] if p == 1 else vandermonde([*inner, one], [m / scale for m in moments[:p]])
                ends = [found.pop()]
            else:
                found = [one / 2] if p == 2 else vandermonde(inner, [m / scale for m in moments[: p - 1]])
                ends = [jnp.zeros_like(h)]
            found = [-scale * w / node for w, node in zip(found, inner)]
            found += [jnp.zeros_like(h)] * (self.order - 1 - len(found))
            rows.append(jnp.stack([*found, *(-scale * end for end in ends)]))
        return jnp.stack(rows)[jnp.maximum(order, 1) - 1]
