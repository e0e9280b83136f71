"""Norms against the plain `jnp` formula and PyTorch; on a GPU against XLA's operations and a copy."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from bench.machine import chosen
from bench.ops.norm import least_bytes, makers, share_of_copy
from bench.ops.norm_shapes import MEASURED, ON_CUDA
from bench.race import PHASES, both

ON_CPU = jax.default_backend() == "cpu"
CASES = {str(case): case for case in chosen(MEASURED, ON_CUDA, 4)}
DTYPE = "float32" if ON_CPU else "bfloat16"


@pytest.mark.parametrize("phase", (PHASES[0], PHASES[2]) if ON_CPU else PHASES)
@pytest.mark.parametrize("name", CASES)
def bench_norm(race: Callable, benchmark, name: str, phase: str) -> None:
    case = CASES[name]
    found = race(
        makers(case, DTYPE, phase, gpu=not ON_CPU),
        f"{case.op} {'x'.join(map(str, case.shape))}",
        settings={"dtype": DTYPE},
    )
    if ratio := found.get("times ours", {}).pop("copy", None):
        benchmark.extra_info |= share_of_copy(case, phase, ratio["median"], found["ms"]["copy"])
    if phase == PHASES[2]:
        benchmark.extra_info["bytes over least"] = bytes_over_least(name)


def bytes_over_least(name: str) -> float:
    """Bytes accessed by the compiled forward and backward pass, over those of reading and writing each array once."""
    case = CASES[name]
    whole = jax.jit(functools.partial(both, case.call))
    compiled = whole.lower(case.cotangent(DTYPE), case.arguments(DTYPE)).compile()
    return round(compiled.cost_analysis()["bytes accessed"] / least_bytes(case, jnp.dtype(DTYPE).itemsize), 2)
