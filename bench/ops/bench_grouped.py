"""Grouped products against one product of every row with every matrix, and against a gathered matrix for each row."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from bench.race import PHASES, jax_side
from eqxgen.ops import grouped_matmul

BATCH, ROWS, IN_DIM, OUT_DIM, GROUPS = 8, 128, 128, 256, 4


def ours(groups, x, weight):
    return jax.vmap(grouped_matmul, (0, None, 0))(x, weight, groups)


def every_matrix(groups, x, weight):
    chosen = jax.nn.one_hot(groups, GROUPS, dtype=x.dtype)
    return jnp.einsum("bng,bni,goi->bno", chosen, x, weight)


def gathered(groups, x, weight):
    return jnp.einsum("bni,bnoi->bno", x, weight[groups])


@pytest.mark.parametrize("phase", [PHASES[0], PHASES[2]])
def bench_grouped_matmul(race: Callable, benchmark, phase: str) -> None:
    keys = jr.split(jr.key(0), 4)
    x, weight = jr.normal(keys[0], (BATCH, ROWS, IN_DIM)), jr.normal(keys[1], (GROUPS, OUT_DIM, IN_DIM))
    groups = jr.randint(keys[2], (BATCH, ROWS), 0, GROUPS)
    dy = jr.normal(keys[3], (BATCH, ROWS, OUT_DIM))
    rivals = {"ours": ours, "every matrix": every_matrix, "gathered": gathered}
    makers = {
        name: functools.partial(jax_side, functools.partial(call, groups), x, weight, phase=phase, cotangent=dy)
        for name, call in rivals.items()
    }
    race(makers, f"grouped_matmul {BATCH}x{ROWS}x{IN_DIM} to {OUT_DIM}, {GROUPS} groups", settings={"dtype": "float32"})
