"""Products and slices of the operands (batch, seq, heads, dim)."""

import math

import jax
import jax.numpy as jnp

from ..problem import Extras, accumulator


def dot(a, b, contract: tuple[int, int], batch: int = 0):
    """The product over one axis of each, whose first `batch` axes they have in common."""
    dtype = accumulator(a.dtype)
    precision = "highest" if a.dtype == dtype else "default"
    shared = tuple(range(batch))
    dims = (((contract[0],), (contract[1],)), (shared, shared))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=dtype, precision=precision)


def scaled(q, scale: float):
    """The query times the scale, and the scale that is left: a bfloat16 takes only a power of two without rounding."""
    if q.dtype in (jnp.float32, jnp.float64) or math.frexp(scale)[0] == 0.5:
        return q * jnp.asarray(scale, q.dtype), 1.0
    return q, scale


def nan_to_zero(x, extras: Extras):
    """`x` after `quarantine` with 0 for NaN: the products with it must not spread it to rows that do not see it."""
    return x if extras.mask is None else jnp.where(jnp.isnan(x), 0, x)


def rows_of(x, example, head, heads: int):
    """(heads, seq, dim) of an array (batch, seq, heads, dim)."""
    return jnp.moveaxis(
        jax.lax.dynamic_slice(x, corner(example, 0, head, 0), (1, x.shape[1], heads, x.shape[3]))[0], 1, 0
    )


def cut(x, start, size: int):
    """(..., size, dim) of an array (..., seq, dim)."""
    return jax.lax.dynamic_slice_in_dim(x, start, size, x.ndim - 2)


def put(whole, part, example, head):
    """`whole`, (batch, seq, heads, dim), with a part (heads, seq, dim) of one example written at `head`, cut to its
    length.
    """
    part = jnp.moveaxis(part, 0, 1)[None, : whole.shape[1]].astype(whole.dtype)
    return jax.lax.dynamic_update_slice(whole, part, corner(example, 0, head, 0))


def corner(*indices):
    """The start of a slice, all indices of one type: a Python integer would be an int64 if those are enabled."""
    return tuple(jnp.asarray(index, jnp.int32) for index in indices)
