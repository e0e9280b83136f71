"""The forward pass and its tangent."""

import jax
from jax import Array

from ..spec import Arrays, Spec
from .moments import activate, centred, project, pull_activation, spread, statistics


def normalise(rows: Arrays, params: Arrays, spec: Spec, *, cpu: bool = False) -> list[Array]:
    """`(x, [residual])` and `(factor, term)` to `(y, [h], [mean], rstd)`, with `h = x + residual`."""
    h = sum(rows[1:], rows[0])
    y, mean, rstd = (_on_cpu if cpu else _anywhere)(h, params, spec)
    return [y, *([h] if len(rows) == 2 else []), *([] if mean is None else [mean]), rstd]


def tangent(
    h: Array, params: Arrays, mean: Array | None, rstd: Array, moved: tuple[Array, Array, Array], spec: Spec
) -> Array:
    """The tangent of y from those of h, the factor and the term."""
    (factor, term), (dh, dfactor, dterm) = params, moved
    wide_rstd = spread(rstd, h, spec)
    x_hat = centred(h, mean, spec) * wide_rstd
    dx_hat = wide_rstd * project(dh.astype(x_hat.dtype), x_hat, spec)
    dz = dx_hat * factor + x_hat * dfactor + dterm
    return pull_activation(dz, x_hat, factor, term, spec).astype(h.dtype)


def _anywhere(h: Array, params: Arrays, spec: Spec) -> tuple[Array, Array | None, Array]:
    mean, rstd = statistics(h, spec)
    return _affine(h, mean, rstd, h, params, spec), mean, rstd


def _on_cpu(h: Array, params: Arrays, spec: Spec) -> tuple[Array, Array | None, Array]:
    if spec.batch_dims is None:
        y, _, _ = _anywhere(h, params, spec)
        # A forward pass alone does not use these, and they are compiled away.
        again = jax.lax.optimization_barrier(h)
        return y, statistics(again, spec)[0], statistics(jax.lax.optimization_barrier(again), spec)[1]
    mean = statistics(h, spec)[0]
    rstd = statistics(jax.lax.optimization_barrier(h), spec)[1]
    again, mean, rstd = jax.lax.optimization_barrier((h, mean, rstd))
    return _affine(again, mean, rstd, h, params, spec), mean, rstd


def _affine(h: Array, mean: Array | None, rstd: Array, like: Array, params: Arrays, spec: Spec) -> Array:
    factor, term = params
    z = centred(h, mean, spec) * spread(rstd, like, spec) * factor + term
    return activate(z, spec).astype(h.dtype)
