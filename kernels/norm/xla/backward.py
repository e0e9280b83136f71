"""The backward pass, the transpose of the tangent."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from ..spec import Arrays, Spec
from .moments import centred, project, pull_activation, share, spread, statistics, sum_to

Gradients = tuple[Array, Array, Array]


def gradients(
    rows: Arrays, params: Arrays, mean: Array | None, rstd: Array, spec: Spec, *, cpu: bool = False
) -> Gradients:
    """`(h, dy, [dh])`, `(factor, term)` and the statistics to `(dh, dfactor, dterm)`."""
    (h, dy, *dh), (factor, term) = rows, params
    run = _on_cpu if cpu else _anywhere
    return run(h, mean, rstd, factor, term, dy, dh[0] if dh else None, spec)


def _anywhere(h, mean, rstd, factor, term, dy, dh, spec: Spec) -> Gradients:
    wide_rstd = spread(rstd, h, spec)
    x_hat = centred(h, mean, spec) * wide_rstd
    dz = pull_activation(dy.astype(x_hat.dtype), x_hat, factor, term, spec)
    dx = wide_rstd * project(dz * factor, x_hat, spec)
    if dh is not None:
        dx = dx + dh.astype(dx.dtype)
    return dx.astype(h.dtype), sum_to(dz * x_hat, factor.shape), sum_to(dz, term.shape)


def _on_cpu(h, mean, rstd, factor, term, dy, dh, spec: Spec) -> Gradients:
    h, mean, rstd, factor, term, dy = jax.lax.optimization_barrier((h, mean, rstd, factor, term, dy))
    if spec.activation:
        # The exponential is expensive, so dy * act'(z) is written to memory.
        x_hat = centred(h, mean, spec) * spread(rstd, h, spec)
        dy = pull_activation(dy.astype(x_hat.dtype), x_hat, factor, term, spec)
        h, mean, rstd, factor, dy = jax.lax.optimization_barrier((h, mean, rstd, factor, dy))
        spec = dataclasses.replace(spec, activation=None)
    if spec.batch_dims is not None and all(size == 1 for size in factor.shape[spec.batch_dims : -1]):
        return _of_groups(h, mean, rstd, factor, term, dy, dh, spec)
    if spec.batch_dims is None:
        # The chain recomputes the statistics of its rows while they are in cache, and the forward pass need not write
        # them.
        mean, rstd = statistics(h, spec)
    dx, _, _ = _anywhere(h, mean, rstd, factor, term, dy, dh, spec)
    h, mean, rstd, factor, term, dy = jax.lax.optimization_barrier((h, mean, rstd, factor, term, dy))
    if spec.batch_dims is None:
        mean, rstd = statistics(h, spec)
    _, dfactor, dterm = _anywhere(h, mean, rstd, factor, term, dy, None, spec)
    return dx, dfactor, dterm


def _of_groups(h, mean, rstd, factor, term, dy, dh, spec: Spec) -> Gradients:
    """Sums over space first, then the rest on `(*batch, channels)`, and one more pass for the gradient of x."""
    space = tuple(range(spec.batch_dims or 0, h.ndim - 1))
    centre = centred(h, mean, spec)
    dz = dy.astype(centre.dtype)
    along = jnp.sum(dz * centre, space, keepdims=True)
    total = jnp.sum(jax.lax.optimization_barrier(dz), space, keepdims=True)

    count = share(h.shape, spec)
    group = lambda a: jnp.sum(jnp.squeeze(a, space).reshape(*rstd.shape, h.shape[-1] // spec.groups), -1) / count
    per_channel = functools.partial(spread, like=h, spec=spec)
    wide = per_channel(rstd)
    slope = per_channel(rstd**3 * group(along * factor))
    offset = per_channel(rstd * group(total * factor))
    h, dy, mean, gain, slope, offset = jax.lax.optimization_barrier((h, dy, mean, wide * factor, slope, offset))
    dx = dy.astype(gain.dtype) * gain - (centred(h, mean, spec) * slope + offset)
    if dh is not None:
        dx = dx + dh.astype(dx.dtype)
    return dx.astype(h.dtype), sum_to(along * wide, factor.shape), sum_to(total, term.shape)
