"""The definition of the norms, in the shortest correct JAX.

    x_hat = (x - mean) / sqrt(variance + epsilon)
    y = act((x_hat * (scale_offset + scale) + bias) * (1 + mod_scale) + mod_shift)

Statistics and everything after them are float32 (float64 for float64 input), and the variance is taken around the mean
in a second pass. A row whose variance overflows float32 (values from about 1e19 on) gives x_hat = 0.
"""

import jax
import jax.numpy as jnp
from jax import Array

from .spec import Modulation, Spec, accumulator


def norm(x: Array, scale: Array | None, bias: Array | None, modulation: Modulation, spec: Spec) -> Array:
    """The norm of x, in x's dtype; see `spec.Spec` for the axes that share statistics."""
    wide = x.astype(accumulator(x.dtype))
    return finish(normalise(wide, spec), scale, bias, modulation, spec).astype(x.dtype)


def normalise(x: Array, spec: Spec) -> Array:
    """`x_hat`, in the dtype of x."""
    grouped = x.reshape(*x.shape[:-1], spec.groups, x.shape[-1] // spec.groups)
    axes = spec.axes(grouped.ndim)
    if spec.center:
        grouped = grouped - mean(grouped, axes)
    return (grouped * jax.lax.rsqrt(mean(grouped * grouped, axes) + spec.epsilon)).reshape(x.shape)


def mean(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean over `axes`, kept as axes of size 1. Division before the sum avoids overflow of huge rows."""
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return jnp.sum(x * (1 / max(count, 1)), axes, keepdims=True)


def finish(x_hat: Array, scale: Array | None, bias: Array | None, modulation: Modulation, spec: Spec) -> Array:
    """Scale, bias, modulation and activation, each where it is given."""

    def row(a: Array) -> Array:
        return a.astype(x_hat.dtype).reshape((1,) * (x_hat.ndim - a.ndim) + a.shape)

    y = x_hat
    if scale is not None:
        y = y * (row(scale) + spec.scale_offset)
    if bias is not None:
        y = y + row(bias)
    if modulation is not None:
        shift, mod_scale = modulation
        y = y * (1 + row(mod_scale)) + row(shift)
    return jax.nn.silu(y) if spec.activation == "silu" else y
