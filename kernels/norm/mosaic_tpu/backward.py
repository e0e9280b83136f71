"""The backward pass."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from ..fold import examples
from ..spec import Arrays, Spec
from ..xla.moments import pull_activation
from .launch import over_examples, over_rows
from .moments import group_size, group_sum, normalise_groups, normalise_rows, row_mean


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


def _groups(h, dy, factor, term, member, dx, sum_x, sum_1, *, spec, shared):
    for e in range(h.shape[0]):
        p = 0 if shared else e
        x_hat, rstd = normalise_groups(h[e].astype(jnp.float32), member[...], spec)
        a = factor[p]
        dz = pull_activation(dy[e].astype(jnp.float32), x_hat, a, term[p], spec)
        of_x, of_1 = jnp.sum(dz * x_hat, 0, keepdims=True), jnp.sum(dz, 0, keepdims=True)
        along, total = (group_sum(s * a * (1 / group_size(dz, member)), member[...]) for s in (of_x, of_1))
        dx[e] = (rstd * (dz * a - x_hat * along - total)).astype(dx.dtype)
        sum_x[e], sum_1[e] = of_x, of_1
