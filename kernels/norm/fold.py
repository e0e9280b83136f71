"""The parameters of a norm as one factor and one term.

Scale, bias and modulation are affine in x_hat, so a kernel computes `z = x_hat * factor + term`, and for all their
gradients the sums of `dz * x_hat` and of `dz` over the elements that share a factor and a term. JAX differentiates the
operations here.
"""

import math

import jax.numpy as jnp
from jax import Array

from .spec import Modulation, Spec, accumulator


def fold(x: Array, scale: Array | None, bias: Array | None, modulation: Modulation, spec: Spec) -> tuple[Array, Array]:
    """`(factor, term)` in the accumulator's dtype, of x's rank, with 1 on every axis along which they are shared."""
    dtype = accumulator(x.dtype)
    row = lambda a: a.astype(dtype).reshape((1,) * (x.ndim - a.ndim) + a.shape)
    factor = jnp.ones((1,) * (x.ndim - 1) + x.shape[-1:], dtype) if scale is None else row(scale) + spec.scale_offset
    term = jnp.zeros_like(factor) if bias is None else row(bias)
    if modulation is not None:
        shift, gain = row(modulation[0]), 1 + row(modulation[1])
        shape = jnp.broadcast_shapes(shift.shape, gain.shape)
        factor = jnp.broadcast_to(factor * gain, shape)
        term = jnp.broadcast_to(term * gain + shift, shape)
    return factor, term


def sharing(x_shape: tuple[int, ...], row_shape: tuple[int, ...], spec: Spec) -> tuple[int, int] | None:
    """`examples` over rows; for group norm over the batch, and None for parameters that vary over space."""
    split = spec.batch_dims
    if split is None:
        return examples(x_shape, row_shape)
    if any(size != 1 for size in row_shape[split:-1]):
        return None
    return examples((*x_shape[:split], 1), (*row_shape[:split], 1))


def examples(x_shape: tuple[int, ...], row_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """`(examples, rows of each)` if parameters of `row_shape` have the leading axes of x and then 1 on all others, else
    None.
    """
    leading = len(x_shape) - 1
    split = next((i for i in range(leading) if row_shape[i] != x_shape[i]), leading)
    if any(size != 1 for size in row_shape[split:leading]):
        return None
    return math.prod(x_shape[:split]), math.prod(x_shape[split:leading])
