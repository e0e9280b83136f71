"""What both passes do to their operands."""

import math

import jax
import jax.numpy as jnp

from ..problem import Extras, accumulator


def pad(x, axis: int, block: int):
    missing = -x.shape[axis] % block
    if not missing:
        return x
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, missing)
    return jnp.pad(x, pad)


def varying(x, like):
    """`x` varying over the manual axes of `like`, as the carry of a loop must."""
    axes = jax.typeof(like).manual_axis_type.varying - jax.typeof(x).manual_axis_type.varying
    return jax.lax.pcast(x, tuple(axes), to="varying")


def dot(a, b, contract: tuple[int, int], batch: int = 0):
    """The product over one axis of each, whose first `batch` axes they have in common."""
    dtype = accumulator(a.dtype)
    precision = "highest" if a.dtype == dtype else "default"
    shared = tuple(range(batch))
    dims = (((contract[0],), (contract[1],)), (shared, shared))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=dtype, precision=precision)


def scaled(q, scale: float):
    """The query with the scale inside, and what is left of the scale: a bfloat16 takes only a power of two without
    rounding.
    """
    if q.dtype in (jnp.float32, jnp.float64) or math.frexp(scale)[0] == 0.5:
        return q * jnp.asarray(scale, q.dtype), 1.0
    return q, scale


def quarantine(q, k, v, extras: Extras):
    """Rows of q and k that hold a number that is not finite, in k or v, become NaN; v becomes finite."""
    if extras.mask is None:
        return q, k, v
    # One NaN in a row makes NaN of all its logits.
    only_nan = lambda x: jnp.where(jnp.isfinite(x), x, jnp.nan)
    good_v = jnp.isfinite(v)
    return only_nan(q), jnp.where(jnp.isfinite(k) & good_v.all(-1, keepdims=True), k, jnp.nan), jnp.where(good_v, v, 0)


def clean(x, extras: Extras):
    """Rows without the NaN by which `quarantine` marks them for their logits: a product must not spread it to those who
    do not see them.
    """
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
    """`whole`, (batch, seq, heads, dim), with a part (heads, seq, dim) of one example in its place, cut to the length
    of `whole`.
    """
    part = jnp.moveaxis(part, 0, 1)[None, : whole.shape[1]].astype(whole.dtype)
    return jax.lax.dynamic_update_slice(whole, part, corner(example, 0, head, 0))


def corner(*indices):
    """Where a slice starts, all in one type: a Python integer would be an int64 where those are enabled."""
    return tuple(jnp.asarray(index, jnp.int32) for index in indices)
