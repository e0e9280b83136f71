"""Argument validation of the norms."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array


def check_input(op: str, x: Array, least_rank: int = 1) -> None:
    """Check that x is floating point, of rank `least_rank` or more, with a last axis of size 1 or more."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{op}: x must be floating point: got x.dtype={x.dtype}; cast it, e.g. x.astype(jnp.float32)")
    if x.ndim < least_rank:
        raise ValueError(
            f"{op}: x must have rank {least_rank} or more: got x.shape={x.shape}, of rank {x.ndim}; add the missing "
            "axes"
        )
    if x.shape[-1] == 0:
        raise ValueError(f"{op}: the last axis of x must have size 1 or more to have a mean: got x.shape={x.shape}")


def check_numbers(op: str, epsilon: Any, scale_offset: Any = 0.0) -> None:
    """Check that epsilon is positive and finite and scale_offset finite, both Python numbers."""
    for name, value in (("epsilon", epsilon), ("scale_offset", scale_offset)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(
                f"{op}: {name} must be a Python number: got {value!r}; it is part of the compiled program, not an "
                "argument of it"
            )
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(
            f"{op}: epsilon must be positive and finite, or a constant row divides by zero: got epsilon={epsilon}; use "
            "1e-6 or 1e-5"
        )
    if not math.isfinite(scale_offset):
        raise ValueError(f"{op}: scale_offset must be finite: got scale_offset={scale_offset}")


def check_parameter(op: str, name: str, value: Array | None, x: Array) -> None:
    """Check that scale or bias is floating point and of shape `(dim,)`."""
    if value is None:
        return
    dim = x.shape[-1]
    _floating(op, name, value)
    if value.shape != (dim,):
        raise ValueError(
            f"{op}: {name} must have shape (dim,), the last axis of x: got {name}.shape={value.shape}, "
            f"x.shape={x.shape}; pass {name} of shape ({dim},)"
        )


def check_residual(op: str, residual: Array | None, x: Array) -> None:
    """Check that residual has the shape and the dtype of x."""
    if residual is None:
        return
    if residual.shape != x.shape:
        raise ValueError(
            f"{op}: residual must have the shape of x: got residual.shape={residual.shape}, x.shape={x.shape}"
        )
    if residual.dtype != x.dtype:
        raise ValueError(
            f"{op}: residual must have the dtype of x: got residual.dtype={residual.dtype}, x.dtype={x.dtype}; cast "
            "one of them"
        )


def check_modulation(op: str, modulation: Any, x: Array) -> None:
    """Check that shift and scale are floating point, of shape `(dim,)` or of x's rank with 1 on broadcast axes."""
    if modulation is None:
        return
    if not isinstance(modulation, tuple) or len(modulation) != 2:
        describe = f"{type(modulation).__name__}{f' of {len(modulation)}' if isinstance(modulation, tuple) else ''}"
        raise ValueError(f"{op}: modulation must be a tuple (shift, scale): got {describe}")
    for name, value in zip(("modulation shift", "modulation scale"), modulation):
        _floating(op, name, value)
        if value.shape == x.shape[-1:]:
            continue
        # A shift of shape (batch, dim) would broadcast along the tokens of x, so a rank below x's is an error.
        if (
            value.ndim != x.ndim
            or value.shape[-1] != x.shape[-1]
            or any(v not in (1, n) for v, n in zip(value.shape, x.shape))
        ):
            example = (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]) if x.ndim > 1 else x.shape
            raise ValueError(
                f"{op}: {name} must broadcast to x, with shape (dim,) or the rank of x and 1 on every broadcast axis: "
                f"got shape {value.shape}, x.shape={x.shape}; one row per example has shape {example}"
            )


def check_groups(op: str, x: Array, groups: int, batch_dims: int, activation: str | None) -> None:
    """Check that groups divide the channels, that x has its batch axes and a channel axis, and the activation."""
    if batch_dims < 0:
        raise ValueError(f"{op}: batch_dims must be 0 or more: got batch_dims={batch_dims}")
    check_input(op, x, batch_dims + 1)
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(
            f"{op}: groups must divide the channels: got groups={groups}, channels={channels} of x.shape={x.shape}; "
            f"use one of {[g for g in range(1, channels + 1) if channels % g == 0]}"
        )
    if activation not in (None, "silu"):
        raise ValueError(f"{op}: activation must be None or 'silu': got {activation!r}; apply any other to the result")


def _floating(op: str, name: str, value: Array) -> None:
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{op}: {name} must be floating point: got dtype {value.dtype}; cast it, e.g. to float32")
