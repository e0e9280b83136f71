"""Statistics and the other parts of a norm that both passes share."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from ..spec import Spec, accumulator


def statistics(h: Array, spec: Spec) -> tuple[Array | None, Array]:
    """`(mean, rstd)`, with the variance around the mean in a second pass over the row."""
    mean = None
    if spec.center:
        mean = average(h.astype(accumulator(h.dtype)), spec)
        # The sum of a row may overflow although its mean does not. Such a row has rstd = 0, and 0 * inf is NaN.
        largest = float(jnp.finfo(mean.dtype).max) / 2
        mean = jnp.clip(mean, -largest, largest)
    wide = centred(h, mean, spec)
    return mean, jax.lax.rsqrt(average(wide * wide, spec) + spec.epsilon)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def kept_statistics(h: Array, mean: Array | None, rstd: Array, spec: Spec) -> tuple[Array | None, Array]:
    """`statistics(h)`, kept from the forward pass as `mean` and `rstd`; differentiable in h."""
    return mean, rstd


@kept_statistics.defjvp
def _kept_statistics_jvp(spec, primals, tangents):
    h, dh = primals[0], tangents[0]
    mean, rstd = kept_statistics(*primals, spec)
    dh = dh.astype(rstd.dtype)
    d_rstd = -(rstd**3) * average(centred(h, mean, spec) * dh, spec)
    return (mean, rstd), (average(dh, spec) if spec.center else None, d_rstd)


def centred(h: Array, mean: Array | None, spec: Spec) -> Array:
    """h - mean, in the accumulator's dtype."""
    wide = h.astype(accumulator(h.dtype))
    return wide if mean is None else wide - spread(mean, h, spec)


def average(x: Array, spec: Spec) -> Array:
    """The mean of x, `(*batch, *spatial, channels)`, as `(*batch, groups)` over the elements that share statistics."""
    batch = x.ndim - 1 if spec.batch_dims is None else spec.batch_dims
    channels = jnp.sum(x, tuple(range(batch, x.ndim - 1)))
    total = jnp.sum(channels.reshape(*channels.shape[:-1], spec.groups, x.shape[-1] // spec.groups), -1)
    return total * (1 / share(x.shape, spec))


def share(shape: tuple[int, ...], spec: Spec) -> int:
    """The number of elements that share their statistics in an x of this shape."""
    batch = len(shape) - 1 if spec.batch_dims is None else spec.batch_dims
    return max(math.prod(shape[batch:]) // spec.groups, 1)


def spread(stat: Array, like: Array, spec: Spec) -> Array:
    """`(*batch, groups)` as an array that broadcasts to `like`."""
    batch = stat.ndim - 1
    if spec.groups > 1:
        stat = jnp.repeat(stat, like.shape[-1] // spec.groups, -1)
    return stat.reshape(*stat.shape[:batch], *(1,) * (like.ndim - 1 - batch), stat.shape[-1])


def project(a: Array, x_hat: Array, spec: Spec) -> Array:
    """a without its mean (if the norm centres) and without its component along x_hat; its own transpose."""
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
