"""The attention op: every implementation against its formula, over the table of cases."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.ops.attention_shapes import ATTENTION, MASKS, Attention
from kernels import dot_product_attention, masks
from tests.full import FULL, full, rows
from tests.kernels.attention_cases import call, inputs, measure, tiles, whole
from tests.kernels.attention_oracle import agree, oracle

# The definition is compiled for a few cases; EQXGEN_FULL=1 takes all.
DEFINED = ATTENTION if FULL else ("123", "everything", "key bias", "alibi")
ALIKE = ("causal offset", "dense", "key bias", "lengths", "multi query", "query bias", "shared bias")
"""Rows of `nox -s full` alone: another row has their options, and every backend's table has them too."""
TABLE = [pytest.param("xla", name, marks=full if name in ALIKE else ()) for name in ATTENTION]
TABLE += [("reference", name) for name in DEFINED]


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    """Tiles so small that the shapes here need several."""
    with tiles(((64, 64), (32, 32)), ((32, 32), (16, 32))):
        yield


def close(got, want, scale=2e-5):
    def one(a, b):
        top = max(1.0, float(jnp.max(jnp.abs(b))) if b.size else 1.0)
        np.testing.assert_allclose(a, b, atol=scale * top, rtol=2e-4)

    jax.tree.map(one, got, want)


@pytest.mark.parametrize(("implementation", "name"), TABLE)
def test_an_implementation_has_the_value_and_every_gradient_of_the_formula(implementation, name):
    arrays, rest = inputs(ATTENTION[name])
    agree(
        jax.jit(functools.partial(measure, rest=rest, implementation=implementation))(arrays),
        ATTENTION[name],
        arrays,
        rest,
    )


@pytest.mark.parametrize("name", rows(ATTENTION, *list(ATTENTION)[1::2]))
def test_short_problems_taken_whole_have_the_value_and_every_gradient_of_the_formula(name):
    arrays, rest = inputs(ATTENTION[name])
    with whole():
        agree(
            jax.jit(functools.partial(measure, rest=rest, implementation="xla"))(arrays), ATTENTION[name], arrays, rest
        )


def test_the_same_call_twice_is_equal_bit_by_bit():
    arrays, rest = inputs(ATTENTION["everything"])
    run = jax.jit(functools.partial(measure, rest=rest, implementation="xla"))
    jax.tree.map(np.testing.assert_array_equal, run(arrays), run(arrays))


SAME_AS_JAX = {
    "nothing": {},
    "causal": {"is_causal": True},
    "window": {"local_window_size": 3},
    "causal window": {"local_window_size": (2, 5), "is_causal": True},
    "lengths": {"key_value_seq_lengths": np.array([3, 20])},
    "scale": {"scale": 0.2},
    "mask": {"mask": np.random.default_rng(0).random((2, 1, 20, 20)) > 0.3},
}


@pytest.mark.parametrize("arguments", SAME_AS_JAX.values(), ids=SAME_AS_JAX)
def test_where_every_row_sees_a_key_the_result_is_that_of_jax_nn(arguments):
    arrays, _ = inputs(Attention(batch=2, q_seq=20, kv_seq=20, heads=4))

    @jax.jit
    def both(arrays):
        return [
            f(**arrays, **arguments, return_residual=True)
            for f in (dot_product_attention, jax.nn.dot_product_attention)
        ]

    (out, lse), (want, want_lse) = both(arrays)
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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=full), jnp.float32])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cut", [contextlib.nullcontext, whole], ids=["tiles", "whole"])
def test_the_error_against_float64_is_at_most_twice_that_of_jax_nn(dtype, causal, cut):
    mask = MASKS["causal"] if causal else None
    case = Attention(batch=2, q_seq=96, kv_seq=96, heads=4, kv_heads=4, head_dim=32, v_head_dim=32, mask=mask)
    arrays, rest = inputs(case, seed=3, dtype=dtype)
    # A power of two keeps the weights of the outputs exact in every dtype.
    weights = np.where(np.arange(2 * 96 * 4 * 32).reshape(2, 96, 4, 32) % 3 == 0, 1.0, -0.5)
    (true, _), true_grads = oracle(case, arrays, rest, d_out=weights, d_lse=0.0)

    def run(attend, dtype):
        cast = {name: np.asarray(x).astype(dtype) for name, x in arrays.items()}
        value = lambda a: (lambda out: (jnp.sum(out.astype(jnp.float32) * jnp.float32(weights)), out))(
            attend(**a, is_causal=causal)
        )
        grads, out = jax.jit(jax.grad(value, has_aux=True))(cast)
        return [out, *(grads[name] for name in true_grads)]

    with cut():
        ours = run(functools.partial(dot_product_attention, implementation="xla"), dtype)
    # jax.nn refuses float16 on the CPU: its bfloat16 result takes its place there, whose error is the larger by the dtypes'
    # ratio.
    peer = jnp.bfloat16 if dtype == jnp.float16 else dtype
    theirs = run(jax.nn.dot_product_attention, peer)
    shrink = float(jnp.finfo(dtype).eps) / float(jnp.finfo(peer).eps)
    for mine, peers, exact in zip(ours, theirs, [true, *true_grads.values()]):
        # The greatest error is a matter of luck where all are roundings.
        error = lambda x, exact=exact: float(np.sqrt(np.mean((np.asarray(x, np.float64) - exact) ** 2)))
        assert error(mine) <= 2 * shrink * error(peers)


def test_float16_runs_and_logits_of_any_finite_size_stay_finite():
    arrays, _ = inputs(Attention(q_seq=9, kv_seq=9), dtype=jnp.float16)
    assert call(arrays, {}, None)[0].dtype == jnp.float16
    arrays, _ = inputs(Attention(q_seq=40, kv_seq=40))
    run = jax.jit(jax.value_and_grad(lambda a: jnp.sum(call(a, {"mask": masks.Causal()}, "xla")[0])))
    for size in (1e2, 1e4, 1e18):
        value, grads = run(arrays | {"query": arrays["query"] * size})
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in grads.values())


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
    weights = lambda key, **kw: jax.jit(
        lambda key: dot_product_attention(jnp.zeros(shape), eye, eye, dropout_rate=0.3, dropout_key=key, **kw)
    )(key)
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
    assert (kept != (np.asarray(weights(jax.random.key(8), implementation="xla")) > 0)).any()
    for others in (tiles(((48, 16),), ((48, 16),)), whole()):
        with others:
            np.testing.assert_array_equal(kept, np.asarray(weights(key, implementation="xla")) > 0)
