"""Integer arithmetic of blocks: counts, powers of two, padding, and division inside a kernel."""

import jax
import jax.numpy as jnp

SYMBOLIC = "a kernel needs the sizes while tracing, and one of them is a symbol"


def known(*sizes) -> bool:
    """True if no size is a symbol of `jax.export`, for which blocks cannot be counted."""
    return all(isinstance(size, int) for size in sizes)


def parts(whole: int, part: int) -> int:
    """The number of parts of this size that cover the whole."""
    return -(-whole // part)


def power(n: int) -> int:
    """The power of two at or above n."""
    return 1 << (n - 1).bit_length()


def pad(x, axis: int, unit: int):
    """`x` with zeros up to a multiple of the unit along an axis."""
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, -x.shape[axis] % unit)
    return jnp.pad(x, missing) if missing[axis][1] else x


def div(a, b: int):
    """`a // b` of a non-negative scalar of a kernel, which may be known."""
    if isinstance(a, int):
        return a // b
    # Python's `//` rounds down, for which Pallas queries the device of the process and not the kernel's.
    return a if b == 1 else jax.lax.div(a, jnp.int32(b))


def rem(a, b: int):
    """`a % b` of a non-negative scalar of a kernel, which may be known."""
    if isinstance(a, int):
        return a % b
    return jnp.int32(0) if b == 1 else jax.lax.rem(a, jnp.int32(b))


def div_array(x, divisor: int):
    """`x // divisor` of non-negative integers, by a shift if the divisor is a power of two."""
    shift = divisor.bit_length() - 1
    if divisor == 1 << shift:
        return jax.lax.shift_right_logical(x, jnp.full_like(x, shift))
    return jax.lax.div(x, jnp.full_like(x, divisor))
