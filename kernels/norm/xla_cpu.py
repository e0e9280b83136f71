"""Both passes arranged for XLA's CPU compiler; the same numbers as in `xla.py` up to rounding.

That compiler runs a chain of elementwise operations and sums along rows as one loop over cache-sized blocks, but only
while nothing in the chain has a user outside of it: x_hat, shared between the passes and among the gradients, is
written to memory, and so are the broadcast rows it is made of. So each result gets its own chain from h and dy, and a
barrier hides from the compiler that the chains begin alike.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from . import xla
from .spec import Spec


def forward(
    x: Array, residual: Array | None, factor: Array, term: Array, spec: Spec
) -> tuple[Array, Array, Array | None, Array]:
    """`(y, h, mean, rstd)` as `xla.forward` has them."""
    if spec.batch_dims is None:
        y, h, _, _ = xla.forward(x, residual, factor, term, spec)
        # In a forward pass alone nobody asks for these, and they are compiled away.
        again = jax.lax.optimization_barrier(h)
        return y, h, xla.statistics(again, spec)[0], xla.statistics(jax.lax.optimization_barrier(again), spec)[1]
    h = x if residual is None else x + residual
    mean = xla.statistics(h, spec)[0]
    rstd = xla.statistics(jax.lax.optimization_barrier(h), spec)[1]
    again, mean, rstd = jax.lax.optimization_barrier((h, mean, rstd))
    z = xla.centred(again, mean, spec) * xla.spread(rstd, h, spec) * factor + term
    return xla.activate(z, spec).astype(x.dtype), h, mean, rstd


def backward(
    h: Array, mean: Array | None, rstd: Array, factor: Array, term: Array, dy: Array, dh: Array | None, spec: Spec
) -> tuple[Array, Array, Array]:
    """`(dh, dfactor, dterm)` from the cotangents of y and of h."""
    h, mean, rstd, factor, term, dy = jax.lax.optimization_barrier((h, mean, rstd, factor, term, dy))
    if spec.activation:
        # Its exponential is dear, so what it makes of dy is the one thing worth writing to memory.
        x_hat = xla.centred(h, mean, spec) * xla.spread(rstd, h, spec)
        dy = xla.pull_activation(dy.astype(x_hat.dtype), x_hat, factor, term, spec)
        h, mean, rstd, factor, dy = jax.lax.optimization_barrier((h, mean, rstd, factor, dy))
        spec = dataclasses.replace(spec, activation=None)
    if spec.batch_dims is not None and all(size == 1 for size in factor.shape[spec.batch_dims : -1]):
        return _of_groups(h, mean, rstd, factor, term, dy, dh, spec)
    if spec.batch_dims is None:
        # A chain finds the statistics of its rows again while they are in cache; nobody then asks the forward pass to
        # write them.
        mean, rstd = xla.statistics(h, spec)
    dx, _, _ = xla.backward(h, mean, rstd, factor, term, dy, dh, spec)
    h, mean, rstd, factor, term, dy = jax.lax.optimization_barrier((h, mean, rstd, factor, term, dy))
    if spec.batch_dims is None:
        mean, rstd = xla.statistics(h, spec)
    _, dfactor, dterm = xla.backward(h, mean, rstd, factor, term, dy, None, spec)
    return dx, dfactor, dterm


def _of_groups(h, mean, rstd, factor, term, dy, dh, spec):
    """Sums over space first, then everything else on `(*batch, channels)`, and one more pass for the gradient of x."""
    space = tuple(range(spec.batch_dims, h.ndim - 1))
    centre = xla.centred(h, mean, spec)
    dz = dy.astype(centre.dtype)
    along = jnp.sum(dz * centre, space, keepdims=True)
    total = jnp.sum(jax.lax.optimization_barrier(dz), space, keepdims=True)

    count = xla.share(h.shape, spec)
    group = lambda a: jnp.sum(jnp.squeeze(a, space).reshape(*rstd.shape, h.shape[-1] // spec.groups), -1) / count
    per_channel = functools.partial(xla.spread, like=h, spec=spec)
    wide = per_channel(rstd)
    slope = per_channel(rstd**3 * group(along * factor))
    offset = per_channel(rstd * group(total * factor))
    h, dy, mean, gain, slope, offset = jax.lax.optimization_barrier((h, dy, mean, wide * factor, slope, offset))
    dx = dy.astype(gain.dtype) * gain - (xla.centred(h, mean, spec) * slope + offset)
    if dh is not None:
        dx = dx + dh.astype(dx.dtype)
    return dx.astype(h.dtype), xla.sum_to(along * wide, factor.shape), xla.sum_to(total, term.shape)
