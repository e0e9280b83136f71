"""The derivatives of a norm, whatever computes it.

The tangents of both passes are plain JAX, so forward mode and any order work, and the transpose of the forward pass's
tangent is the backward pass. With x_hat = (h - mean) * rstd and g the cotangent of x_hat,

    dx_hat = rstd * (dh - E[dh] - x_hat * E[x_hat * dh]),     its transpose     dh = rstd * (g - E[g] - x_hat * E[x_hat * g]).

Between the passes live h, the folded parameters, the mean and rstd.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from . import xla
from .linear import linear
from .passes import Backward, Forward, Route, pass_p, run


def norm(route: Route, x: Array, residual: Array | None, factor: Array, term: Array) -> tuple[Array, Array | None]:
    """`(y, h)` of `xla.forward`, with `h` None when there is no residual."""
    if residual is None:
        return run(Forward(route, False), x, factor, term)[0], None
    y, h, *_ = run(Forward(route, True), x, residual, factor, term)
    return y, h


def _jvp(primals, tangents, *, work):
    tangents = [ad.instantiate_zeros(t) for t in tangents]
    if isinstance(work, Backward):
        return run(work, *primals), jax.jvp(work.plain, tuple(primals), tuple(tangents))[1]
    y, *rest = run(work, *primals)
    h, dh = primals[0], tangents[0]
    if work.residual:
        h, dh = rest[0], dh + tangents[1]
    stats = rest[1:] if work.residual else rest
    dots = linear(_Tangent(work.route, work.residual), (h, *primals[-2:], *stats), (dh, *tangents[-2:]))
    mean = stats[0] if work.route.spec.center else None
    moved = xla.statistics_tangent(h, mean, stats[-1], dh, work.route.spec)
    return [y, *rest], [*dots, *(d for d in moved if d is not None)]


@dataclasses.dataclass(frozen=True)
class _Tangent:
    """`(dh, dfactor, dterm) -> (dy, [dh])` as a map for `linear`, with the backward pass as its transpose."""

    route: Route
    residual: bool

    @property
    def outputs(self) -> int:
        return 2 if self.residual else 1

    def apply(self, res, lin):
        h, factor, term, *stats = res
        mean = stats[0] if self.route.spec.center else None
        return (xla.tangent((h, mean, stats[-1], factor, term), lin, self.route.spec), lin[0])[: self.outputs]

    def transpose(self, res, cts):
        (h, *params), (dy, dh) = res, (*cts, None)[:2]
        if dy is None:
            return dh, jnp.zeros_like(params[0]), jnp.zeros_like(params[1])
        rows = (h, dy) if dh is None else (h, dy, dh)
        return run(Backward(self.route, dh is not None), *rows, *params)


ad.primitive_jvps[pass_p] = _jvp
