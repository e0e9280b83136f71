"""The attention op: every implementation against the definition, and the definition against its formula."""

import functools
import operator
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import call, inputs, quick_jit, scalar, set_tiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.shapes import ATTENTION, MASKS, Attention
from kernels import _dropout, dot_product_attention, masks
from kernels.attention import checks
from kernels.attention.problem import unsqueeze


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    """Tiles so small that the shapes here need several."""
    before = set_tiles((32, 32), (32, 32), (16, 32), (16, 32))
    yield
    set_tiles(*before)


def both(case, implementation, *, seed=0):
    """((value, gradients), (value, gradients)) of an implementation and of the definition."""
    arrays, rest = inputs(case, seed=seed)
    measure = lambda name: quick_jit(jax.value_and_grad(functools.partial(scalar, rest=rest, implementation=name)))(arrays)
    return measure(implementation), measure("reference")


def close(got, want, scale=2e-5):
    def one(a, b):
        top = max(1.0, float(jnp.max(jnp.abs(b))) if b.size else 1.0)
        np.testing.assert_allclose(a, b, atol=scale * top, rtol=2e-4)

    jax.tree.map(one, got, want)


@pytest.mark.parametrize("name", ATTENTION)
def test_xla_has_the_value_and_every_gradient_of_the_definition(name):
    close(*both(ATTENTION[name], "xla"))


def formula(q, k, v, allowed, bias=0.0):
    """Attention of one head in float64 NumPy, row by row."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = q @ k.T / np.sqrt(q.shape[-1]) + bias
    out, lse = np.zeros((len(q), v.shape[-1])), np.full(len(q), -np.inf)
    for i in range(len(q)):
        seen = logits[i, allowed[i]]
        if seen.size:
            lse[i] = np.log(np.sum(np.exp(seen - seen.max()))) + seen.max()
            out[i] = np.exp(seen - lse[i]) @ v[allowed[i]]
    return out, lse


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_the_formula_holds_row_by_row_and_query_heads_share_their_key_head(implementation):
    arrays, rest = inputs(Attention(q_seq=9, kv_seq=40, heads=4))
    i, j = np.indices((9, 40))
    bias = np.random.default_rng(1).standard_normal((4, 9, 40)).astype(np.float32)
    out, lse = call(arrays | {"bias": bias}, rest | {"mask": masks.Window(2, 20)}, implementation)
    for head in range(4):
        q, k, v = arrays["query"][0, :, head], arrays["key"][0, :, head // 2], arrays["value"][0, :, head // 2]
        want, want_lse = formula(q, k, v, (j >= i - 2) & (j <= i + 20), bias[head])
        np.testing.assert_allclose(out[0, :, head], want, atol=2e-6)
        np.testing.assert_allclose(lse[0, :, head], want_lse, atol=2e-6)


SAME_AS_JAX = [
    {},
    {"is_causal": True},
    {"local_window_size": 3},
    {"local_window_size": (2, 5), "is_causal": True},
    {"key_value_seq_lengths": np.array([3, 20])},
    {"scale": 0.2},
    {"mask": np.random.default_rng(0).random((2, 1, 20, 20)) > 0.3},
]


@pytest.mark.parametrize("arguments", SAME_AS_JAX, ids=str)
def test_where_every_row_sees_a_key_the_result_is_that_of_jax_nn(arguments):
    arrays, _ = inputs(Attention(batch=2, q_seq=20, kv_seq=20, heads=4))
    out, lse = dot_product_attention(**arrays, **arguments, return_residual=True)
    want, want_lse = jax.nn.dot_product_attention(**arrays, **arguments, return_residual=True)
    np.testing.assert_allclose(out, want, atol=2e-6)
    np.testing.assert_allclose(lse, want_lse, atol=2e-6)


def test_leading_axes_may_be_many_or_none():
    arrays, rest = inputs(Attention(batch=6, q_seq=7, kv_seq=7, mask=MASKS["lengths"]))
    whole, _ = call(arrays, rest, None)
    lengths = rest["mask"]
    split = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (arrays, lengths))
    out, _ = call(split[0], rest | {"mask": split[1]}, None)
    np.testing.assert_array_equal(out.reshape(whole.shape), whole)
    one = jax.tree.map(lambda x: x[4], (arrays, lengths))
    np.testing.assert_allclose(call(one[0], rest | {"mask": one[1]}, None)[0], whole[4], atol=1e-6)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("mask", ["length", "empty bias", "empty mask"])
def test_a_row_that_sees_nothing_is_zero_with_zero_gradient_and_minus_infinite_logsumexp(implementation, mask):
    arrays, _ = inputs(Attention(q_seq=40, kv_seq=40))
    rest = {
        "length": {"query_seq_lengths": np.array([0])},
        "empty bias": {"bias": jnp.full((1, 1, 40, 1), -jnp.inf)},
        "empty mask": {"mask": np.zeros((1, 1, 40, 40), bool)},
    }[mask]
    out, lse = call(arrays, rest, implementation)
    assert (out == 0).all()
    assert (lse == -jnp.inf).all()
    grads = jax.grad(lambda arrays: jnp.sum(call(arrays, rest, implementation)[0] * 3.0))(arrays)
    assert all((g == 0).all() for g in grads.values())


NOT_SEEN = {
    "lengths": {"key_value_seq_lengths": np.array([30])},
    "causal": {"mask": masks.Causal()},
    "window": {"mask": masks.Window(3, 3)},
    "segments": {"mask": masks.Segments(np.arange(40) // 10)},
    "prefix": {"mask": masks.PrefixLM(4)},
    "pattern": {"mask": masks.BlockSparse(np.tri(5, dtype=bool), 8)},
    "dense": {"mask": np.tri(40, dtype=bool)},
    "causal offset": {"mask": masks.Causal(np.array([1]))},
}


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize(("name", "bad"), [(name, np.nan) for name in NOT_SEEN] + [("lengths", np.inf), ("causal", -np.inf)])
def test_a_key_that_is_not_finite_reaches_only_those_who_see_it(implementation, name, bad):
    arrays, _ = inputs(Attention(q_seq=40, kv_seq=40))
    spoilt = arrays | {"key": arrays["key"].at[:, 35:].set(bad), "value": arrays["value"].at[:, 35:].set(bad)}

    # No query before 30 sees key 35 under any of these masks, and from 30 on none sees anything.
    rest = NOT_SEEN[name] | {"query_seq_lengths": np.array([30])}

    def total(arrays):
        out, lse = call(arrays, rest, implementation)
        return jnp.sum(out**2) + jnp.sum(lse[:, :30])

    close(*(quick_jit(jax.value_and_grad(total))(x) for x in (spoilt, arrays)))


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_a_key_that_is_not_finite_spoils_all_who_see_it(implementation):
    arrays, _ = inputs(Attention(q_seq=40, kv_seq=40))
    out, _ = call(arrays | {"value": arrays["value"].at[0, 35, 0, 0].set(jnp.nan)}, {"mask": masks.Causal()}, implementation)
    bad = np.isnan(out[0]).any(-1)
    assert bad[35:, 0].all()
    assert not bad[:35].any()
    assert not bad[:, 1].any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("causal", [True, False])
def test_the_error_against_float64_is_at_most_twice_that_of_jax_nn(dtype, causal):
    case = Attention(batch=2, q_seq=96, kv_seq=96, heads=4, kv_heads=4, head_dim=32, v_head_dim=32)
    arrays, _ = inputs(case, seed=3, dtype=dtype)
    wide = {name: x.astype(jnp.float32) for name, x in arrays.items()}

    def run(arrays, attend):
        value = lambda arrays: (lambda out: (jnp.sum(jnp.sin(out.astype(jnp.float32))), out))(attend(**arrays, is_causal=causal))
        grads, out = quick_jit(jax.grad(value, has_aux=True))(arrays)
        return [out, *grads.values()]

    with jax.enable_x64(True):
        exact = run(
            {n: x.astype(jnp.float64) for n, x in wide.items()}, functools.partial(dot_product_attention, implementation="reference")
        )
    ours = run(arrays, functools.partial(dot_product_attention, implementation="xla"))
    # jax.nn refuses float16 on the CPU: there its bfloat16 result stands in, whose error is the larger by the dtypes' ratio.
    peer = jnp.bfloat16 if dtype == jnp.float16 else dtype
    theirs = run({n: x.astype(peer) for n, x in arrays.items()}, jax.nn.dot_product_attention)
    shrink = float(jnp.finfo(dtype).eps) / float(jnp.finfo(peer).eps)
    for mine, peers, true in zip(ours, theirs, exact):
        error = lambda x, true=true: float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(true))))
        assert error(mine) <= 2 * shrink * error(peers) + float(jnp.finfo(dtype).eps) * float(np.max(np.abs(true)))


def test_float16_runs_and_logits_of_any_finite_size_stay_finite():
    arrays, _ = inputs(Attention(q_seq=9, kv_seq=9), dtype=jnp.float16)
    assert call(arrays, {}, None)[0].dtype == jnp.float16
    arrays, _ = inputs(Attention(q_seq=40, kv_seq=40))
    for size in (1e2, 1e4, 1e18):
        big = arrays | {"query": arrays["query"] * size}
        value, grads = jax.value_and_grad(lambda a: jnp.sum(call(a, {"mask": masks.Causal()}, "xla")[0]))(big)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in grads.values())


def test_the_same_call_twice_is_equal_bit_by_bit():
    first, second = both(ATTENTION["everything"], "xla")[0], both(ATTENTION["everything"], "xla")[0]
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3), (2, 3, 0)])
def test_axes_of_length_zero_are_defined(shape):
    batch, q_seq, kv_seq = shape
    out, lse = dot_product_attention(
        jnp.ones((batch, q_seq, 2, 4)),
        jnp.ones((batch, kv_seq, 2, 4)),
        jnp.ones((batch, kv_seq, 2, 6)),
        is_causal=True,
        return_residual=True,
    )
    assert out.shape == (batch, q_seq, 2, 6)
    assert (out == 0).all()
    assert (lse == -jnp.inf).all()


def test_dropout_drops_at_its_rate_and_is_the_same_whatever_the_tiles():
    shape = (2, 100, 4, 100)
    eye = jnp.broadcast_to(jnp.eye(100)[:, None], (2, 100, 4, 100))
    weights = lambda key, **kw: dot_product_attention(jnp.zeros(shape), eye, eye, dropout_rate=0.3, dropout_key=key, **kw)
    key = jax.random.key(7)
    kept = np.asarray(weights(key, implementation="xla")) > 0
    n = kept.size
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / n)
    for axis in range(4):
        others = tuple(a for a in range(4) if a != axis)
        means = kept.mean(others)
        assert np.abs(means - 0.7).max() < 6 * np.sqrt(0.21 * kept.shape[axis] / n)
    rows = kept.transpose(0, 2, 1, 3).reshape(-1, 100)
    assert len(np.unique(rows, axis=0)) == len(rows)
    np.testing.assert_array_equal(kept, np.asarray(weights(key, implementation="reference")) > 0)
    assert (kept != (np.asarray(weights(jax.random.key(8))) > 0)).any()
    before = set_tiles(*[(48, 16)] * 4)
    try:
        np.testing.assert_array_equal(kept, np.asarray(weights(key, implementation="xla")) > 0)
    finally:
        set_tiles(*before)


def oracle(case, arrays, rest):
    """(out, logsumexp) in float64 NumPy, and the dropout bits of the op."""
    q, k, v = (np.asarray(arrays[name], np.float64).swapaxes(1, 2) for name in ("query", "key", "value"))
    k, v = (x.repeat(case.heads // case.kv_heads, 1) for x in (k, v))
    logits = q @ k.swapaxes(2, 3) / np.sqrt(case.head_dim)
    if case.soft_cap is not None:
        logits = case.soft_cap * np.tanh(logits / case.soft_cap)
    logits = logits + np.asarray(arrays.get("bias", 0.0), np.float64)
    i, j = np.arange(case.q_seq, dtype=np.int32).reshape(1, 1, -1, 1), np.arange(case.kv_seq, dtype=np.int32).reshape(1, 1, 1, -1)
    allowed = np.ones_like(logits, bool)
    if "mask" in rest:
        bound = checks.bound_mask(rest["mask"], (case.batch,), case.heads, case.q_seq, case.kv_seq)
        views = [unsqueeze(np.asarray(x) if not isinstance(x, int) else x, axes) for axes, x in zip(bound.axes, bound.arrays())]
        allowed = allowed & np.asarray(bound.allowed(i, j, *views))
    weights = np.where(allowed, np.exp(np.where(allowed, logits, 0.0)), 0.0)
    total = weights.sum(-1)
    weights = weights / np.where(total == 0, 1, total)[..., None]
    if case.dropout_rate:
        seeds = np.asarray(_dropout.seeds(rest["dropout_key"], case.batch, case.heads))[:, :, None, None]
        weights = np.where(_dropout.keep(seeds[..., 0], seeds[..., 1], i, j, case.dropout_rate), weights / (1 - case.dropout_rate), 0.0)
    with np.errstate(divide="ignore"):
        return (weights @ v).swapaxes(1, 2), np.log(total).swapaxes(1, 2)


def agrees_with_numpy(case, seed):
    arrays, rest = inputs(case, seed=seed)
    got = quick_jit(functools.partial(call, rest=rest, implementation="xla"))(arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), got, oracle(case, arrays, rest))


PAIRS = [(a, b) for i, a in enumerate(MASKS) for b in list(MASKS)[i + 1 :]]


@pytest.mark.parametrize("join", [operator.and_, operator.or_])
def test_xla_agrees_with_numpy_for_each_pair_of_masks(join):
    for index, (a, b) in enumerate(PAIRS):
        mask = lambda draw, case, a=a, b=b: join(MASKS[a](draw, case), MASKS[b](draw, case))
        agrees_with_numpy(Attention(batch=2, q_seq=37, kv_seq=45, mask=mask), index)


NIGHTLY = int(os.environ.get("EQXGEN_HYPOTHESIS_EXAMPLES", "100"))


@st.composite
def problems(draw):
    mask_names = draw(st.lists(st.sampled_from(sorted(MASKS)), max_size=2, unique=True))
    ors = draw(st.booleans())

    def mask(generator, case):
        made = [MASKS[name](generator, case) for name in mask_names]
        return functools.reduce(lambda a, b: a | b if ors else a & b, made)

    kv_heads = draw(st.sampled_from([1, 2]))
    return Attention(
        batch=draw(st.sampled_from([1, 2])),
        q_seq=draw(st.sampled_from([1, 5, 32, 50])),
        kv_seq=draw(st.sampled_from([1, 7, 33, 64])),
        heads=kv_heads * draw(st.sampled_from([1, 2])),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([1, 4, 7])),
        v_head_dim=draw(st.sampled_from([1, 4])),
        mask=mask if mask_names else None,
        bias=draw(st.none() | st.tuples(*[st.booleans()] * 4)),
        soft_cap=draw(st.none() | st.just(2.0)),
        dropout_rate=draw(st.sampled_from([0.0, 0.0, 0.4])),
    ), draw(st.integers(0, 2**16))


@settings(max_examples=NIGHTLY, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(problems())
def test_xla_agrees_with_numpy_for_drawn_problems(problem):
    agrees_with_numpy(*problem)
