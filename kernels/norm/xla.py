"""The norms in plain XLA operations, on folded parameters (`fold.py`): statistics, both passes, and the tangent.

    x_hat = (h - mean) * rstd,    z = x_hat * factor + term,    y = act(z)

Statistics are `(*batch, groups)`, in the accumulator's dtype; without centring the mean is `None`.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from .reference import accumulator
from .spec import Spec


def forward(
    x: Array, residual: Array | None, factor: Array, term: Array, spec: Spec
) -> tuple[Array, Array, Array | None, Array]:
    """`(y, h, mean, rstd)`, with `h = x + residual`."""
    h = x if residual is None else x + residual
    mean, rstd = statistics(h, spec)
    z = centred(h, mean, spec) * spread(rstd, h, spec) * factor + term
    return activate(z, spec).astype(x.dtype), h, mean, rstd


def backward(
    h: Array, mean: Array | None, rstd: Array, factor: Array, term: Array, dy: Array, dh: Array | None, spec: Spec
) -> tuple[Array, Array, Array]:
    """`(dh, dfactor, dterm)` from the cotangents of y and of h; the transpose of `tangent`."""
    wide_rstd = spread(rstd, h, spec)
    x_hat = centred(h, mean, spec) * wide_rstd
    dz = pull_activation(dy.astype(x_hat.dtype), x_hat, factor, term, spec)
    dx = wide_rstd * project(dz * factor, x_hat, spec)
    if dh is not None:
        dx = dx + dh.astype(dx.dtype)
    return dx.astype(h.dtype), sum_to(dz * x_hat, factor.shape), sum_to(dz, term.shape)


def tangent(
    kept: tuple[Array, Array | None, Array, Array, Array], moved: tuple[Array, Array, Array], spec: Spec
) -> Array:
    """The tangent of y from `(h, mean, rstd, factor, term)` and the tangents of h, the factor and the term."""
    h, mean, rstd, factor, term = kept
    dh, dfactor, dterm = moved
    wide_rstd = spread(rstd, h, spec)
    x_hat = centred(h, mean, spec) * wide_rstd
    dx_hat = wide_rstd * project(dh.astype(x_hat.dtype), x_hat, spec)
    dz = dx_hat * factor + x_hat * dfactor + dterm
    return pull_activation(dz, x_hat, factor, term, spec).astype(h.dtype)


def statistics(h: Array, spec: Spec) -> tuple[Array | None, Array]:
    """Mean and reciprocal deviation, the variance around the mean in a second pass over the row at hand."""
    mean = None
    if spec.center:
        mean = average(h.astype(accumulator(h.dtype)), spec)
        # The sum of a row may overflow where its mean does not. Such a row has rstd = 0, which must not meet an
        # infinity.
        largest = float(jnp.finfo(mean.dtype).max) / 2
        mean = jnp.clip(mean, -largest, largest)
    wide = centred(h, mean, spec)
    return mean, jax.lax.rsqrt(average(wide * wide, spec) + spec.epsilon)


def statistics_tangent(h: Array, mean: Array | None, rstd: Array, dh: Array, spec: Spec) -> tuple[Array | None, Array]:
    """The tangents of `statistics`."""
    dh = dh.astype(rstd.dtype)
    return average(dh, spec) if spec.center else None, -(rstd**3) * average(centred(h, mean, spec) * dh, spec)


def centred(h: Array, mean: Array | None, spec: Spec) -> Array:
    """h around its mean, in the accumulator's dtype."""
    wide = h.astype(accumulator(h.dtype))
    return wide if mean is None else wide - spread(mean, h, spec)


def average(x: Array, spec: Spec) -> Array:
    """The mean of x, `(*batch, *spatial, channels)`, over what shares its statistics: `(*batch, groups)`."""
    batch = x.ndim - 1 if spec.batch_dims is None else spec.batch_dims
    channels = jnp.sum(x, tuple(range(batch, x.ndim - 1)))
    total = jnp.sum(channels.reshape(*channels.shape[:-1], spec.groups, x.shape[-1] // spec.groups), -1)
    return total * (1 / share(x.shape, spec))


def share(shape: tuple[int, ...], spec: Spec) -> int:
    """How many elements of an x of this shape share their statistics."""
    batch = len(shape) - 1 if spec.batch_dims is None else spec.batch_dims
    return max(math.prod(shape[batch:]) // spec.groups, 1)


def spread(stat: Array, like: Array, spec: Spec) -> Array:
    """`(*batch, groups)` as an array that broadcasts to `like`."""
    batch = stat.ndim - 1
    if spec.groups > 1:
        stat = jnp.repeat(stat, like.shape[-1] // spec.groups, -1)
    return stat.reshape(*stat.shape[:batch], *(1,) * (like.ndim - 1 - batch), stat.shape[-1])


def project(a: Array, x_hat: Array, spec: Spec) -> Array:
    """a without its mean (where the norm centres) and without its component along x_hat; its own transpose."""
    along = x_hat * spread(average(a * x_hat, spec), a, spec)
    return (a - spread(average(a, spec), a, spec) if spec.center else a) - along


def activate(z: Array, spec: Spec) -> Array:
    """act(z)."""
    return jax.nn.silu(z) if spec.activation == "silu" else z


def pull_activation(dy: Array, x_hat: Array, factor: Array, term: Array, spec: Spec) -> Array:
    """dy times the slope of the activation at z."""
    if spec.activation != "silu":
        return dy
    z = x_hat * factor + term
    s = jax.nn.sigmoid(z)
    return dy * (s * (1 + z * (1 - s)))


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x summed over the axes on which `shape`, of the same rank, has size 1."""
    return jnp.sum(x, tuple(i for i, size in enumerate(shape) if size == 1 != x.shape[i]), keepdims=True)
