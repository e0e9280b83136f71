"""Statistics of the rows or of the example that a program holds."""

import functools

import jax
import jax.numpy as jnp

HUGE = 1e37  # a variance near the largest float


def normalise_rows(h, spec, dim):
    """`(x_hat, rstd)` of rows."""
    if spec.center:
        h = h - row_mean(h, dim)
    rstd = jax.lax.rsqrt(row_mean(h * h, dim) + spec.epsilon)
    return h * rstd, rstd


def row_mean(x, dim):
    """The mean of each row."""
    return jnp.sum(x * (1 / dim), -1, keepdims=True)


def normalise_groups(x, member, spec):
    """`(x_hat, rstd)` of an example; `member` is (channels, groups), 1 where a channel is in a group."""
    share = 1 / group_size(x, member)
    x = x - group_sum(jnp.sum(x * share, 0, keepdims=True), member)
    # An infinity times the zeros of `member` is NaN; a variance as large gives x_hat = 0.
    variance = group_sum(jnp.minimum(jnp.sum(x * x * share, 0, keepdims=True), HUGE), member)
    rstd = jnp.where(variance < HUGE / 2, jax.lax.rsqrt(variance + spec.epsilon), 0.0)
    return x * rstd, rstd


def group_sum(channels, member):
    """The group's sum at each of its channels, `(1, channels)`."""
    dot = functools.partial(
        jax.lax.dot_general, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return dot(dot(channels, member, (((1,), (0,)), ((), ()))), member, (((1,), (1,)), ((), ())))


def group_size(x, member):
    """The number of elements of a group of an example."""
    return x.shape[0] * member.shape[0] // member.shape[1]
