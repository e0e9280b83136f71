"""Norms with all that is fused: ours, and the same in XLA's operations."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bench.ops.norm_shapes import GROUP, LAYER, RMS, Case
from bench.race import both

SILU = (("groups", 32), ("activation", "silu"))
CASES = (
    Case(LAYER, (16, 1024, 4096), bias=True),
    Case(LAYER, (16, 1024, 4096), scale=False, modulation=(16, 1, 4096)),
    Case(LAYER, (16, 1024, 4096), bias=True, residual=True),
    Case(RMS, (16, 1024, 4096)),
    Case(RMS, (16, 1024, 4096), residual=True),
    Case(LAYER, (64, 1024, 768), bias=True),
    Case(LAYER, (8, 1024, 1152), scale=False, modulation=(8, 1, 1152)),
    Case(GROUP, (256, 64, 320), bias=True, options=SILU),
    Case(GROUP, (256, 16, 16, 512), bias=True, options=SILU),
    Case(GROUP, (256, 16, 16, 512), bias=True, modulation=(256, 1, 1, 512), options=SILU),
    Case(GROUP, (256, 16, 16, 256), bias=True, options=(("groups", 32),)),
)


def calls(case: Case) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Ours and XLA's: name, function of both passes, shapes."""
    arguments = operands(case)
    for name, implementation in (("ours", "mosaic_tpu"), ("xla", "xla")):
        yield name, functools.partial(both, functools.partial(case.call, implementation=implementation)), arguments


def operands(case: Case) -> tuple[Any, dict[str, Any]]:
    """The shapes of the cotangent and of the arguments."""
    x, row = jax.ShapeDtypeStruct(case.shape, jnp.bfloat16), jax.ShapeDtypeStruct(case.shape[-1:], jnp.float32)
    given = {"x": x}
    given |= {"scale": row} if case.scale else {}
    given |= {"bias": row} if case.bias else {}
    given |= {"residual": x} if case.residual else {}
    given |= {"modulation": (jax.ShapeDtypeStruct(case.modulation, jnp.float32),) * 2} if case.modulation else {}
    return (x, x) if case.residual else x, given
