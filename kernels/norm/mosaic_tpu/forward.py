"""The forward pass."""

import functools

import jax.numpy as jnp
from jax import Array

from ..spec import Arrays, Spec
from ..xla.moments import statistics
from .launch import over_examples, over_rows
from .moments import group_moments, normalise_rows, over_space, sigmoid


def normalise(rows: Arrays, params: Arrays, spec: Spec, *, interpret: bool = False) -> list[Array]:
    """`(x, [residual])` and `(factor, term)` to `(y, [h], [mean], rstd)`."""
    if spec.batch_dims is None:
        kernel = functools.partial(_rows, spec=spec, dim=rows[0].shape[-1])
        out = over_rows(kernel, rows, params, n_rows=len(rows), n_sums=0, interpret=interpret)
    else:
        out = over_examples(_groups, rows, params, spec, n_sums=0, interpret=interpret)
    # The backward kernel does not read the statistics: they are compiled away unless a derivative in XLA does.
    h = out[1] if len(rows) == 2 else rows[0]
    return [*out, *(a for a in statistics(h, spec) if a is not None)]


def _rows(*refs, spec, dim):
    half = len(refs) // 2 - 1
    h = refs[0][...].astype(jnp.float32)
    if half == 2:
        h = h + refs[1][...].astype(jnp.float32)
        refs[-1][...] = h.astype(refs[-1].dtype)
    factor, term, y = refs[half], refs[half + 1], refs[half + 2]
    x_hat, _ = normalise_rows(h, spec, dim)
    y[...] = (x_hat * factor[...] + term[...]).astype(y.dtype)


def _groups(x, factor, term, member, y, *, spec, shared):
    mean, rstd = group_moments(x, member, spec)
    for e in range(x.shape[0]):
        p = 0 if shared else e
        gain, shift = rstd[e : e + 1] * factor[p], term[p]

        def step(rows, carry, e=e, gain=gain, shift=shift):
            z = (x[e, rows].astype(jnp.float32) - mean[e : e + 1]) * gain + shift
            y[e, rows] = (z * sigmoid(z, y.dtype) if spec.activation else z).astype(y.dtype)
            return carry

        over_space(x, step, ())
