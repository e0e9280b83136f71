"""The few places where jax has no public door."""

from typing import Any

from jax._src import dispatch
from jax._src.interpreters import partial_eval


def needs_devices(primitive) -> None:
    """Have a primitive lowered with the program's devices at hand, which `custom_partitioning` inside its lowering asks
    for.
    """
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def keep_always(primitive: Any) -> None:
    """Have a primitive's equations stay where nobody uses their results.

    jax-triton asks for the same of its launches, but up to its version 0.4.1 by a rule of two arguments; jax 0.12 gives
    it three.
    """
    partial_eval.dce_rules[primitive] = lambda used, *rest: ([True] * len(rest[-1].invars), rest[-1])
