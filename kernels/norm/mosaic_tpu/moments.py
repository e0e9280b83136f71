"""Statistics of the rows or of the example that a program holds."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .tiling import SUBLANES, space_part

# Moved to `pltpu` in jax 0.12.
RECIPROCAL: Any = getattr(pltpu, "reciprocal", None) or pl.reciprocal
HUGE = 1e37  # a variance near the largest float
LOG2_E = 1.4426950408889634
LEAST = -80.0  # below which z * sigmoid(z) is less than any rounding


def normalise_rows(h, spec, dim):
    """`(x_hat, rstd)` of rows."""
    if spec.center:
        h = h - row_mean(h, dim)
    rstd = jax.lax.rsqrt(row_mean(h * h, dim) + spec.epsilon)
    return h * rstd, rstd


def row_mean(x, dim):
    """The mean of each row."""
    return jnp.sum(x * (1 / dim), -1, keepdims=True)


def group_moments(x, member, spec):
    """`(mean, rstd)` of the examples in the reference x, (examples, channels) each; `member` is (channels, groups), 1
    where a channel is in a group.
    """
    share = 1 / group_size(x, member)
    mean = group_sum(channel_sums(x, lambda e, rows: x[e, rows].astype(jnp.float32) * share), member[...])

    def squares(e, rows):
        centred = x[e, rows].astype(jnp.float32) - mean[e : e + 1]
        return centred * centred * share

    # An infinity times the zeros of `member` is NaN; a variance as large gives x_hat = 0.
    variance = group_sum(jnp.minimum(channel_sums(x, squares), HUGE), member[...])
    return mean, jnp.where(variance < HUGE / 2, jax.lax.rsqrt(variance + spec.epsilon), 0.0)


def channel_sums(x, value):
    """`value(e, rows)` summed over the space of each example of x, (examples, channels)."""

    def total(e):
        zeros = jnp.zeros((SUBLANES, x.shape[2]), jnp.float32)
        return over_space(x, lambda rows, carry: add_rows(carry, value(e, rows)), zeros)

    return jnp.concatenate([jnp.sum(total(e), 0, keepdims=True) for e in range(x.shape[0])])


def over_space(x, step, carry):
    """`step(rows, carry)` over the space of an example in parts that fit in registers, with the last carry."""
    space, part = x.shape[1], space_part(x.shape[2])
    whole = space // part

    def turn(i, carry):
        return step(pl.ds(pl.multiple_of(i * part, part), part), carry)

    carry = jax.lax.fori_loop(0, whole, turn, carry) if whole else carry
    return step(pl.ds(whole * part, space % part), carry) if space % part else carry


def add_rows(total, x):
    """The rows of x added to those of `total`, (SUBLANES, channels), whose sum over rows is what matters."""
    if x.shape[0] % SUBLANES:
        first = jax.lax.broadcasted_iota(jnp.int32, total.shape, 0) == 0
        return total + jnp.where(first, jnp.sum(x, 0, keepdims=True), 0.0)
    return total + jnp.sum(x.reshape(-1, SUBLANES, x.shape[1]), 0)


def sigmoid(z, dtype):
    """1 / (1 + exp(-z)), for results of this dtype."""
    if dtype == jnp.float32:
        return jax.nn.sigmoid(z)
    # A division handles signs, zeros and subnormal numbers, of which a sum above 1 has none.
    denominator = 1 + jnp.exp2(jnp.maximum(z, LEAST) * -LOG2_E)
    inverse = RECIPROCAL(denominator, approx=True)
    return inverse * (2 - denominator * inverse)


def group_sum(channels, member):
    """The group's sum at each of its channels, (examples, channels) both."""
    return _exact_product(_exact_product(channels, member, 0), member, 1)


def _exact_product(x, member, axis) -> Any:
    """The float32 product of x with the zeros and ones of `member` along this axis, in one bfloat16 pass."""
    parts = []
    for _ in range(3):  # of 8 bits each
        parts.append(x.astype(jnp.bfloat16))
        x = x - parts[-1].astype(jnp.float32)
    contract = ((1,), (axis,)), ((), ())
    found = jax.lax.dot_general(jnp.concatenate(parts), member, contract, preferred_element_type=jnp.float32)
    return sum(jnp.split(found, 3))


def group_size(x, member):
    """The number of elements of a group of an example."""
    return x.shape[1] * member.shape[0] // member.shape[1]
