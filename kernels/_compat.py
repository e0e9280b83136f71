"""Uses of private JAX APIs."""

from typing import Any

from jax._src import dispatch
from jax._src.interpreters import partial_eval


def needs_devices(primitive) -> None:
    """Pass the program's devices to the lowering of a primitive, as `custom_partitioning` inside it needs."""
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def keep_always(primitive: Any) -> None:
    """Exempt a primitive's equations from dead-code elimination.

    jax-triton does the same for its launches, but up to version 0.4.1 by a rule of two arguments, and jax 0.12 passes
    three.
    """
    partial_eval.dce_rules[primitive] = lambda used, *rest: ([True] * len(rest[-1].invars), rest[-1])
