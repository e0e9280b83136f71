"""Argument checks of the layers. Each error names the argument, the constraint and what came."""

import difflib
import itertools
import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Int, Integer

Ids = Integer[ArrayLike, "..."] | list | tuple
"""Integer ids: an array, an integer, or lists of integers."""


def positive(**numbers: int) -> None:
    """Each number must be an integer of at least 1."""
    _at_least(1, numbers)


def not_negative(**numbers: int) -> None:
    """Each number must be an integer of at least 0."""
    _at_least(0, numbers)


def _at_least(least: int, numbers: dict[str, Any]) -> None:
    for name, value in numbers.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
            raise ValueError(f"{name} must be an integer of at least {least}: got {value!r}")


def pair(name: str, values: Sequence[int], first: str, second: str) -> tuple[int, int]:
    """Two integers of at least 1, `first` and `second` in words."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise ValueError(f"{name} must be {first} and {second}: got {values!r}")
    positive(**dict(zip((f"{name}: {first}", f"{name}: {second}"), values)))
    return int(values[0]), int(values[1])


def increasing(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """The numbers, which must be one or more integers of at least 1, each above the one before."""
    found = tuple(values)
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in found)
    if not found or not whole or found[0] < 1 or any(after <= before for before, after in itertools.pairwise(found)):
        raise ValueError(f"{name} must be integers of at least 1 that increase: got {found}")
    return tuple(int(value) for value in found)


def rate(**numbers: float) -> None:
    """Each number must be in [0, 1)."""
    for name, value in numbers.items():
        if not (isinstance(value, Real) and math.isfinite(value) and 0 <= value < 1):
            raise ValueError(f"{name} must be in [0, 1): got {value!r}")


def probability(**numbers: float) -> None:
    """Each number must be in [0, 1]."""
    for name, value in numbers.items():
        if not (isinstance(value, Real) and 0 <= value <= 1):
            raise ValueError(f"{name} must be a probability, in [0, 1]: got {value!r}")


def above_zero(**numbers: float) -> None:
    """Each number must be positive and finite."""
    for name, value in numbers.items():
        if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite: got {value!r}")


def divides(**pair: int) -> None:
    """The second number must be a multiple of the first: `divides(heads=3, dim=100)`."""
    (small_name, small), (large_name, large) = pair.items()
    if large % small:
        raise ValueError(f"{small_name} must divide {large_name}: got {large_name}={large}, {small_name}={small}")


def even(**numbers: int) -> None:
    """Each number must be a multiple of two."""
    for name, value in numbers.items():
        if value % 2:
            raise ValueError(f"{name} must be even: got {value}")


def epsilon(value: float) -> None:
    """A norm's epsilon must be positive and finite."""
    above_zero(epsilon=value)


def one_of(name: str, value: str, known: Collection[str]) -> None:
    """The value must be one of the known names; the message suggests those of similar spelling."""
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=3)
        nearest = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(sorted(known))}: got {value!r}{nearest}")


def last_axis(x: Array, name: str, size: int) -> None:
    """The last axis of an array `x` must have `size` entries, which the layer calls `name`."""
    if x.ndim == 0 or x.shape[-1] != size:
        raise ValueError(f"the last axis of x must have {name}={size} entries: got shape {x.shape}")


def example(x: Array, *axes: str, name: str = "x", **sizes: int) -> None:
    """An array must be one example with these axes, the last ones of known sizes: `example(x, "seq", dim=8)`."""
    sides = x.shape[len(axes) :]
    if x.ndim != len(axes) + len(sizes) or any(side != size for side, size in zip(sides, sizes.values())):
        wanted = ", ".join((*axes, *(f"{axis}={size}" for axis, size in sizes.items())))
        wanted += "," * (len(axes) + len(sizes) == 1)
        hint = "; jax.vmap the layer over a batch" if x.ndim > len(axes) + len(sizes) else ""
        raise ValueError(f"{name} must be ({wanted}): got shape {x.shape}{hint}")


def image(x: Array, rank: int = 2, **sizes: int) -> None:
    """An array must be one image (rank 2) or one sequence (rank 1), channels last."""
    axes = (*(("height", "width") if rank == 2 else ("seq",)), *(() if sizes else ("channels",)))
    example(x, *axes, name="x", **sizes)


def inexact(x: Array, name: str) -> None:
    """An array must be of a floating-point type."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise ValueError(f"{name} must be of a floating-point type: got {x.dtype}; convert it first")


def same_shape(**pair: Array) -> None:
    """Two arrays must have one shape: nothing is broadcast."""
    (first, x), (second, y) = pair.items()
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(f"{first} and {second} must have one shape: got {jnp.shape(x)} and {jnp.shape(y)}")


def some_spatial(x: Array) -> None:
    """An array `x` must be one example of at least one spatial axis and channels."""
    if x.ndim < 2:
        raise ValueError(f"x must have spatial axes and one of channels: got shape {x.shape}")


def ids(values: Ids, size: int, name: str, limit: str) -> Integer[Array, "*leading"]:
    """The ids as an array. Ids of another type are an error, and so are ids outside [0, size) where their values are
    known: in a compiled program they are not.
    """
    found = integers(values, name)
    if not isinstance(found, Tracer) and found.size:
        known = np.asarray(found)  # on the host, also while another program is traced
        low, high = int(known.min()), int(known.max())
        if low < 0 or high >= size:
            raise ValueError(f"{name} must be in [0, {limit}={size}): got values from {low} to {high}")
    return jnp.asarray(found)


def label(value: Ids, classes: int, null: bool = True) -> Integer[Array, ""]:
    """The number of a class in [0, classes) as an array, or with `null` that of no class, `classes`.

    Raises:
        ValueError: it is no integer, no scalar or out of range; inside a compiled program one that is out of range
            goes through.
    """
    found = ids(value, classes + null, "label", "classes + 1 null" if null else "classes")
    example(found, name="label")
    return found


def permutation(values: Ids, size: int, name: str) -> Int[Array, " size"]:
    """A permutation of 0 to size - 1 as an array; where its values are not known, in a compiled program, it is only of
    the right shape.
    """
    found = ids(values, size, name, "tokens")
    example(found, name=name, tokens=size)
    if not isinstance(found, Tracer) and (np.sort(np.asarray(found)) != np.arange(size)).any():
        raise ValueError(f"{name} must be a permutation of {size} positions: got {np.asarray(found).tolist()[:16]}")
    return found


def integers(values: Ids, name: str) -> Integer[Array | np.ndarray, "*leading"]:
    """Integers, or lists of them, as an array; an error for any other type."""
    if isinstance(values, (list, tuple)) and np.size(values) == 0:
        return np.zeros(np.shape(values), np.int32)
    found = values if isinstance(values, jax.Array) else np.asarray(values)
    if not jnp.issubdtype(found.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers: got {found.dtype.name}; convert them on purpose, by .astype(int)")
    return found
