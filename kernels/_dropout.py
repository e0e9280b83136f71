"""Random bits as a function of a position, the same for every tiling of a kernel."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


def _mix(x):
    """A bijection of 32-bit integers in which every input bit moves every output bit with probability near one half.

    The multiply and xor-shift form with the constants of Wellons' search for low bias ("hash-prospector").
    """
    x = x ^ jax.lax.shift_right_logical(x, jnp.int32(16))
    x = x * jnp.int32(0x21F0AAAD)
    x = x ^ jax.lax.shift_right_logical(x, jnp.int32(15))
    x = x * jnp.int32(0x735A2D97)
    return x ^ jax.lax.shift_right_logical(x, jnp.int32(15))


def seeds(key, batch: int, heads: int):
    """Two int32 numbers for each example and head, `(batch, heads, 2)`, drawn from a key of `jax.random`."""
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (batch, heads, 2), jnp.uint32), jnp.int32)


def of_block(seeds, number):
    """Seeds for a block of pairs that counts its positions from 0, from those of whole sequences and its number."""
    return _mix(seeds ^ _mix(number * jnp.int32(-1640531527) + jnp.int32(1)))


def keep(seed0, seed1, i, j, rate: float):
    """True with probability `1 - rate`, as a function of the seeds of an example and head, of the query `i` and of the
    key `j`, all int32 arrays. The rate is rounded to a multiple of 2^-24.
    """
    row = i * jnp.int32(-1640531527)
    low, high = _mix(row ^ seed0), _mix(row + seed1)
    bits = _mix(_mix(j + low) ^ high)
    return jax.lax.shift_right_logical(bits, jnp.int32(8)) >= jnp.int32(round(rate * 2**24))


def dropout_mask(
    key: Shaped[Array, "..."], shape: tuple[int, ...], rate: float, *, rows: Int[Array, " rows"] | None = None
) -> Bool[Array, "..."]:
    """The entries of an array that dropout keeps: True with probability `1 - rate`, independently of each other.

    A function of 64 bits drawn from the key and of the entry's index; several times cheaper than
    `jax.random.bernoulli`.

    Args:
        key: of `jax.random`.
        shape: of the array; the last axis and the product of the others are below 2^31.
        rate: in [0, 1), rounded to a multiple of 2^-24.
        rows: numbers of the rows, of which the leading axes are one axis, where the array is a part of a larger one; by
            default 0, 1, ...
    """
    seed = jax.lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)
    count, columns = math.prod(shape[:-1]), shape[-1] if shape else 1
    i = jax.lax.broadcasted_iota(jnp.int32, (count, 1), 0) if rows is None else rows.astype(jnp.int32)[:, None]
    j = jax.lax.broadcasted_iota(jnp.int32, (1, columns), 1)
    return keep(seed[0], seed[1], i, jnp.broadcast_to(j, (count, columns)), rate).reshape(shape)
