"""Implementation of each fused operation for given shapes, and the reasons against the others."""

import logging
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from eqxgen import ops

ATTENTION = ("mosaic_gpu", "triton", "cudnn", "mosaic_tpu")
NORM = ("triton", "mosaic_tpu")
"""Implementations that may not run everywhere."""


@runtime_checkable
class Shapes(Protocol):
    """Shapes of an operation."""

    @property
    def batch(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def causal(self) -> bool: ...


def choices(shapes: Shapes) -> list[str]:
    """Two lines or more for each operation: its shapes, the chosen implementation, and the reason against each
    other.
    """
    dtype = jnp.dtype(shapes.dtype)
    dim = shapes.heads * shapes.head_dim
    heads = jax.ShapeDtypeStruct((shapes.batch, shapes.seq, shapes.heads, shapes.head_dim), dtype)
    rows, scale = (
        jax.ShapeDtypeStruct((shapes.batch * shapes.seq, dim), dtype),
        jax.ShapeDtypeStruct((dim,), jnp.float32),
    )
    image = jax.ShapeDtypeStruct((32, 32, max(32, dim // 32 * 32)), dtype)
    weights = jax.ShapeDtypeStruct(image.shape[-1:], jnp.float32)
    attention = lambda q, **kwargs: ops.dot_product_attention(q, q, q, is_causal=shapes.causal, **kwargs)
    lines = _of("dot_product_attention", ATTENTION, attention, heads)
    lines += _of("layer_norm", NORM, ops.layer_norm, rows, scale)
    lines += _of("rms_norm", NORM, ops.rms_norm, rows, scale)
    lines += _of(
        "group_norm", NORM, lambda x, scale, **kwargs: ops.group_norm(x, scale, groups=32, **kwargs), image, weights
    )
    return lines


def _of(
    name: str, implementations: tuple[str, ...], op: Callable[..., Any], *shapes: jax.ShapeDtypeStruct
) -> list[str]:
    lines = [f"{name} of {', '.join(f'{shape.dtype}{list(shape.shape)}' for shape in shapes)}"]
    lines.append(f"  runs as {chosen(op, *shapes).partition(' (')[0]}")
    for implementation in implementations:
        try:
            jax.jit(lambda *arrays, i=implementation: op(*arrays, implementation=i)).lower(*shapes)
        except NotImplementedError as error:
            lines.append(f"  not as {implementation}: {str(error).partition('cannot run: ')[2] or error}")
    return lines


def chosen(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> str:
    """The name that an operation logs as its choice, with the reasons against better ones in parentheses."""
    said: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("eqxgen.kernels")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        jax.jit(function).lower(*shapes)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    return said[-1].partition(" runs as ")[2]
