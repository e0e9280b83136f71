"""Differentiation of a norm, whatever computes it.

A backend brings `forward` and `backward`; both are called through `jax.custom_jvp` functions whose tangents are plain JAX, so forward
mode and any order work, and the transpose of the first tangent is the backend's `backward`. With x_hat = (h - mean) * rstd and g the
cotangent of x_hat,

    dx_hat = rstd * (dh - E[dh] - x_hat * E[x_hat * dh]),     its transpose     dh = rstd * (g - E[g] - x_hat * E[x_hat * g]).

Between the passes live h, the parameters, and the mean and rstd, or no statistics for a backend that finds them again on its way back.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from .linear import linear
from .reference import accumulator, finish
from .spec import Modulation, Spec


class Params(NamedTuple):
    """What is applied to x_hat; see `layer_norm` and `group_norm`."""

    scale: Array | None = None
    bias: Array | None = None
    modulation: Modulation = None


class Stats(NamedTuple):
    """Mean (`None` without centring) and reciprocal deviation, `(*batch, groups)`, in the accumulator's dtype."""

    mean: Array | None
    rstd: Array


@runtime_checkable
class Backend(Protocol):
    """A hashable pair of passes. `h` is `x + residual`; `dy` and `dh` are the cotangents of the two results, `None` where they are zero."""

    @property
    def spec(self) -> Spec: ...
    def forward(self, x: Array, residual: Array | None, params: Params) -> tuple[Array, Array | None, Stats | None]: ...
    def backward(self, h: Array, stats: Stats | None, params: Params, dy: Array | None, dh: Array | None) -> tuple[Array, Params]: ...


def apply(backend: Backend, x: Array, residual: Array | None, params: Params) -> tuple[Array, Array | None]:
    """`(y, h)`, with `h` None when there is no residual."""
    y, h, _ = _forward(backend, x, residual, params)
    return y, h


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _forward(backend, x, residual, params):
    return backend.forward(x, residual, params)


@_forward.defjvp
def _forward_jvp(backend, primals, tangents):
    x, residual, params = primals
    dx, dresidual, dparams = tangents
    y, h, stats = _forward(backend, x, residual, params)
    dh = dx if residual is None else dx + dresidual
    res, res_tree = jax.tree.flatten((x if h is None else h, stats, params))
    lin, lin_tree = jax.tree.flatten((dh, dparams))
    dots = linear(_Tangent(backend, res_tree, lin_tree, 1 if residual is None else 2), tuple(res), tuple(lin))
    return (y, h, stats), (dots[0], dots[1] if len(dots) > 1 else None, _stats_dot(x if h is None else h, stats, dh, backend.spec))


@dataclasses.dataclass(frozen=True)
class _Tangent:
    """The derivative of a norm as a linear map (see `linear`), with the backend's backward pass as its transpose."""

    backend: Any
    res_tree: Any
    lin_tree: Any
    outputs: int

    def apply(self, res, lin):
        h, stats, params = jax.tree.unflatten(self.res_tree, res)
        dh, dparams = jax.tree.unflatten(self.lin_tree, lin)
        return (tangent(h, stats, params, dh, dparams, self.backend.spec), dh)[: self.outputs]

    def transpose(self, res, cts):
        h, stats, params = jax.tree.unflatten(self.res_tree, res)
        dy, dh = (*cts, None)[:2]
        return tuple(jax.tree.leaves(_backward(self.backend, h, stats, params, dy, dh)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(backend, h, stats, params, dy, dh):
    if dy is None:
        return dh, jax.tree.map(jnp.zeros_like, params)
    return backend.backward(h, stats, params, dy, dh)


@_backward.defjvp
def _backward_jvp(backend, primals, tangents):
    _, dots = jax.jvp(functools.partial(plain_backward, spec=backend.spec), primals, tangents)
    return _backward(backend, *primals), dots


def statistics(h: Array, spec: Spec) -> Stats:
    """Mean and reciprocal deviation of h, the variance around the mean in a second pass over the row at hand."""
    wide = h.astype(accumulator(h.dtype))
    mean = None
    if spec.center:
        mean = average(wide, spec)
        wide = wide - spread(mean, h, spec)
    return Stats(mean, jax.lax.rsqrt(average(wide * wide, spec) + spec.epsilon))


def centred(h: Array, stats: Stats, spec: Spec) -> Array:
    """h around its mean, in the accumulator's dtype."""
    wide = h.astype(accumulator(h.dtype))
    return wide if stats.mean is None else wide - spread(stats.mean, h, spec)


def average(x: Array, spec: Spec) -> Array:
    """The mean of x, `(*batch, *spatial, channels)`, over what shares its statistics: `(*batch, groups)`."""
    batch = x.ndim - 1 if spec.batch_dims is None else spec.batch_dims
    share = 1
    for size in x.shape[batch:]:
        share *= size
    share = max(share // spec.groups, 1)
    channels = jnp.sum(x * (1 / share), tuple(range(batch, x.ndim - 1)))
    return jnp.sum(channels.reshape(*channels.shape[:-1], spec.groups, -1), -1)


def spread(stat: Array, like: Array, spec: Spec) -> Array:
    """`(*batch, groups)` as an array that broadcasts to `like`."""
    batch = stat.ndim - 1
    if spec.groups > 1:
        stat = jnp.repeat(stat, like.shape[-1] // spec.groups, -1)
    return stat.reshape(*stat.shape[:batch], *(1,) * (like.ndim - 1 - batch), stat.shape[-1])


def tangent(h: Array, stats: Stats | None, params: Params, dh: Array, dparams: Params, spec: Spec) -> Array:
    """The tangent of y, plain JAX."""
    stats = statistics(h, spec) if stats is None else stats
    rstd = spread(stats.rstd, h, spec)
    x_hat = centred(h, stats, spec) * rstd
    dx_hat = rstd * _project(dh.astype(x_hat.dtype), x_hat, spec)
    _, dy = jax.jvp(lambda a, p: finish(a, p.scale, p.bias, p.modulation, spec), (x_hat, params), (dx_hat, dparams))
    return dy.astype(h.dtype)


def plain_backward(
    h: Array, stats: Stats | None, params: Params, dy: Array | None, dh: Array | None, *, spec: Spec
) -> tuple[Array, Params]:
    """The transpose of `tangent`, plain JAX; sums are taken in the accumulator's dtype before they are cast to a parameter's."""
    if dy is None:
        assert dh is not None
        return dh, jax.tree.map(jnp.zeros_like, params)
    stats = statistics(h, spec) if stats is None else stats
    rstd = spread(stats.rstd, h, spec)
    x_hat = centred(h, stats, spec) * rstd
    wide = jax.tree.map(lambda a: a.astype(x_hat.dtype), params)
    _, pull = jax.vjp(lambda a, p: finish(a, p.scale, p.bias, p.modulation, spec), x_hat, wide)
    g, dparams = pull(dy.astype(x_hat.dtype))
    dx = rstd * _project(g, x_hat, spec)
    if dh is not None:
        dx = dx + dh.astype(dx.dtype)
    return dx.astype(h.dtype), jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)


def _project(a: Array, x_hat: Array, spec: Spec) -> Array:
    """a without its mean (where the norm centres) and without its component along x_hat; its own transpose."""
    along = x_hat * spread(average(a * x_hat, spec), a, spec)
    return (a - spread(average(a, spec), a, spec) if spec.center else a) - along


def _stats_dot(h: Array, stats: Stats | None, dh: Array, spec: Spec) -> Stats | None:
    if stats is None:
        return None
    dh = dh.astype(stats.rstd.dtype)
    along = average(centred(h, stats, spec) * dh, spec)
    return Stats(None if stats.mean is None else average(dh, spec), -(stats.rstd**3) * along)
