"""The parameters of a norm as one factor and one term.

Scale, bias and modulation are affine in x_hat, so a kernel needs to know only `y = x_hat * factor + term`, and for the gradients of them all
only the sums of `dy * x_hat` and of `dy` over the rows that share a factor and a term.
"""

import jax.numpy as jnp
from jax import Array

from .reference import accumulator
from .rules import Params
from .spec import Spec


def fold(params: Params, x: Array, spec: Spec) -> tuple[Array, Array]:
    """`(factor, term)` in the accumulator's dtype, of x's rank, with 1 on every axis along which they are shared."""
    dtype = accumulator(x.dtype)

    def row(a: Array) -> Array:
        return a.astype(dtype).reshape((1,) * (x.ndim - a.ndim) + a.shape)

    factor = jnp.ones((1,) * (x.ndim - 1) + x.shape[-1:], dtype) if params.scale is None else row(params.scale) + spec.scale_offset
    term = jnp.zeros_like(factor) if params.bias is None else row(params.bias)
    if params.modulation is not None:
        shift, scale = params.modulation
        shape = jnp.broadcast_shapes(row(shift).shape, row(scale).shape)
        gain = 1 + jnp.broadcast_to(row(scale), shape)
        factor, term = factor * gain, term * gain + jnp.broadcast_to(row(shift), shape)
    return factor, term
