"""The backward pass."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from ..fold import examples
from ..spec import Arrays, Spec
from .launch import over_examples, over_rows
from .moments import add_rows, group_moments, group_size, group_sum, normalise_rows, over_space, row_mean, sigmoid
from .tiling import SUBLANES


def gradients(
    rows: Arrays, params: Arrays, mean: Array | None, rstd: Array, spec: Spec, *, interpret: bool = False
) -> list[Array]:
    """`(h, dy, [dh])` and `(factor, term)` to `(dh, dfactor, dterm)`; the kernels recompute the statistics."""
    if spec.batch_dims is not None:
        return over_examples(_groups, rows, params, spec, n_sums=2, interpret=interpret)
    factor = params[0]
    count = examples(rows[0].shape, factor.shape)
    assert count is not None
    kernel = functools.partial(_rows, spec=spec, dim=rows[0].shape[-1], total=count[1])
    return over_rows(kernel, rows, (factor,), n_rows=1, n_sums=2, interpret=interpret)


def _rows(*refs, spec, dim, total):
    *inputs, factor, dx, sum_x, sum_1 = refs
    block = inputs[0].shape[0]
    i = pl.program_id(1)
    h, dy, *dh = (ref[...].astype(jnp.float32) for ref in inputs)
    if total % block:
        # The last block exceeds the rows, and what it reads there must not enter the sums.
        inside = i * block + jax.lax.broadcasted_iota(jnp.int32, h.shape, 0) < total
        h, dy = jnp.where(inside, h, 0.0), jnp.where(inside, dy, 0.0)
    x_hat, rstd = normalise_rows(h, spec, dim)
    g = dy * factor[...]
    d = g - x_hat * row_mean(g * x_hat, dim)
    if spec.center:
        d -= row_mean(g, dim)
    d *= rstd
    dx[...] = (d + dh[0] if dh else d).astype(dx.dtype)

    @pl.when(i == 0)
    def _():
        sum_x[...] = jnp.zeros_like(sum_x)
        sum_1[...] = jnp.zeros_like(sum_1)

    sum_x[...] += jnp.sum(dy * x_hat, 0, keepdims=True)
    sum_1[...] += jnp.sum(dy, 0, keepdims=True)


def _groups(h, dy, factor, term, member, dx, sum_x, sum_1, dz, *, spec, shared):
    mean, rstd = group_moments(h, member, spec)
    examples = range(h.shape[0])
    at = lambda e: slice(e, e + 1)
    gains = [factor[0 if shared else e] for e in examples]
    for e in examples:
        statistics = mean[at(e)], rstd[at(e)]
        sum_x[e], sum_1[e] = _example_sums(h, dy, dz, e, *statistics, gains[e], term[0 if shared else e], spec)
    share = 1 / group_size(h, member)
    along, total = (
        group_sum(jnp.concatenate([s[e] * gains[e] * share for e in examples]), member[...]) * rstd
        for s in (sum_x, sum_1)
    )
    gains = jnp.concatenate(gains) * rstd
    for e in examples:

        def step(rows, carry, e=e):
            x_hat = (h[e, rows].astype(jnp.float32) - mean[at(e)]) * rstd[at(e)]
            dx[e, rows] = (dz[e, rows] * gains[at(e)] - x_hat * along[at(e)] - total[at(e)]).astype(dx.dtype)
            return carry

        over_space(h, step, ())


def _example_sums(h, dy, dz, e, mean, rstd, gain, shift, spec):
    """The sums of dz * x_hat and of dz over the space of an example; stores dz."""

    def step(rows, carry):
        x_hat = (h[e, rows].astype(jnp.float32) - mean) * rstd
        slope = dy[e, rows].astype(jnp.float32)
        if spec.activation:
            z = x_hat * gain + shift
            s = sigmoid(z, dy.dtype)
            slope = slope * (s * (1 + z * (1 - s)))
        dz[e, rows] = slope
        return tuple(add_rows(total, value) for total, value in zip(carry, (slope * x_hat, slope)))

    zeros = jnp.zeros((SUBLANES, h.shape[2]), jnp.float32)
    return [jnp.sum(x, 0, keepdims=True) for x in over_space(h, step, (zeros, zeros))]
