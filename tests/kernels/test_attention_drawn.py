"""Attention under every pair of masks, and for drawn problems, against float64 NumPy: values and every gradient."""

import functools
import itertools
import operator
import os

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.ops.attention_shapes import MASKS, Attention
from tests.full import FULL, full
from tests.kernels.attention_cases import Pick, all_masks, inputs, measure, tiles
from tests.kernels.attention_oracle import agree


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    with tiles(((64, 64), (32, 32)), ((32, 32), (16, 32))):
        yield


STATIC = list(itertools.combinations(("causal", "window", "pattern"), 2))


@pytest.mark.parametrize("join", [operator.and_, pytest.param(operator.or_, marks=full)])
def test_each_pair_of_masks(join):
    """One program for all pairs: both masks of a pair are picked at run time."""
    case = Attention(batch=2, q_seq=37, kv_seq=45)
    run = jax.jit(lambda arrays, mask: measure(arrays, {"mask": mask}, "xla"))
    for seed, (a, b) in enumerate(itertools.combinations(range(len(MASKS)), 2)):
        arrays, _ = inputs(case, seed=seed)
        parts = all_masks(np.random.default_rng(seed), case)
        number = lambda n: np.full(case.batch, n, np.int32)
        agree(
            run(arrays, join(Pick(number(a), parts), Pick(number(b), parts))),
            case,
            arrays,
            {"mask": join(parts[a], parts[b])},
        )


@pytest.mark.parametrize("join", [pytest.param(operator.and_, marks=full), operator.or_])
@pytest.mark.parametrize("pair", STATIC, ids=" ".join)
def test_each_pair_of_masks_whose_blocks_are_known_while_tracing(pair, join):
    case = Attention(q_seq=37, kv_seq=45, mask=lambda draw, case: join(*(MASKS[name](draw, case) for name in pair)))
    arrays, rest = inputs(case)
    agree(jax.jit(functools.partial(measure, rest=rest, implementation="xla"))(arrays), case, arrays, rest)


EXAMPLES = int(os.environ.get("EQXGEN_HYPOTHESIS_EXAMPLES", "100" if FULL else "32"))
# Compiling is the cost, so several examples share a program.
PROGRAMS = max(6, EXAMPLES // 8)


@functools.cache
def program(number: int):
    """A problem's shape and options, how its masks are made and joined, and its compiled measurement."""
    draw = np.random.default_rng(number)
    one_of = lambda *options: options[draw.integers(len(options))]
    kv_heads = one_of(1, 2)
    case = Attention(
        batch=one_of(1, 2),
        q_seq=one_of(1, 5, 32, 50),
        kv_seq=one_of(1, 7, 33, 64),
        heads=kv_heads * one_of(1, 2),
        kv_heads=kv_heads,
        head_dim=one_of(1, 4, 7),
        v_head_dim=one_of(1, 4),
        bias=one_of(None, tuple(bool(x) for x in draw.integers(0, 2, 4))),
        soft_cap=one_of(None, 2.0),
        dropout_rate=one_of(0.0, 0.0, 0.4),
    )
    join = one_of(operator.and_, operator.or_)
    names = one_of(None, *([list(draw.permutation(list(MASKS))[:size])] for size in (0, 1, 2)))
    fixed = {"logits_soft_cap": case.soft_cap, "dropout_rate": case.dropout_rate}

    def make(draw, which):
        """(mask for the op, the same mask for the oracle)."""
        made = dict(zip(MASKS, all_masks(draw, case, pattern_seed=number)))
        if names is not None:
            parts = [made[name] for name in names[0]]
            mask = functools.reduce(join, parts) if parts else None
            return mask, mask
        parts = tuple(made.values())
        pick = lambda n: Pick(np.full(case.batch, n, np.int32), parts)
        return join(pick(which[0]), pick(which[1])), join(parts[which[0]], parts[which[1]])

    run = jax.jit(lambda arrays, mask, key: measure(arrays, fixed | {"mask": mask, "dropout_key": key}, "xla"))
    return case, make, run


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(st.integers(0, PROGRAMS - 1), st.integers(0, 2**16), st.tuples(*[st.integers(0, len(MASKS) - 1)] * 2))
def test_drawn_problems(number, seed, which):
    case, make, run = program(number)
    arrays, rest = inputs(case, seed=seed)
    mask, plain = make(np.random.default_rng(seed), which)
    key = jax.random.key(seed)
    agree(run(arrays, mask, key), case, arrays, rest | {"mask": plain, "dropout_key": key})
