"""The checks that constructors share. Each error names the argument, the law and what came."""

import difflib
import math


def positive(**numbers: int) -> None:
    """Each number must be an integer of at least 1."""
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1: got {value!r}")


def not_negative(**numbers: int) -> None:
    """Each number must be an integer of at least 0."""
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} must not be negative: got {value!r}")


def rate(**numbers: float) -> None:
    """Each number must be in [0, 1)."""
    for name, value in numbers.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 1):
            raise ValueError(f"{name} must be in [0, 1): got {value!r}")


def above_zero(**numbers: float) -> None:
    """Each number must be positive and finite."""
    for name, value in numbers.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
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


def one_of(name: str, value: str, known) -> None:
    """The value must be one of the known names; the message has those that are spelled most like it."""
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=3)
        nearest = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(sorted(known))}: got {value!r}{nearest}")


def last_axis(x, name: str, size: int) -> None:
    """The last axis of an array `x` must have `size` entries, which the layer calls `name`."""
    if x.ndim == 0 or x.shape[-1] != size:
        raise ValueError(f"the last axis of x must have {name}={size} entries: got shape {x.shape}")


def spatial(x, rank: int) -> None:
    """An array `x` must be one example of `rank` spatial axes and channels."""
    if x.ndim != rank + 1:
        axes = "1 spatial axis" if rank == 1 else f"{rank} spatial axes"
        raise ValueError(
            f"x must have {axes} and one of channels: got shape {x.shape}; jax.vmap the layer over a batch"
        )


def some_spatial(x) -> None:
    """An array `x` must be one example of at least one spatial axis and channels."""
    if x.ndim < 2:
        raise ValueError(f"x must have spatial axes and one of channels: got shape {x.shape}")
