"""Rows that see no key, and keys that are not finite."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.ops.attention_shapes import Attention
from kernels import dot_product_attention, masks
from tests.kernels.attention_cases import Pick, call, inputs, measure, tiles, whole
from tests.kernels.attention_interpret import interpreted

IMPLEMENTATIONS = ["reference", "xla"]
CASE = Attention(q_seq=40, kv_seq=40)


@pytest.fixture(autouse=True, scope="module", params=["tiles", "whole"])
def cut(request):
    with tiles(((64, 64), (32, 32)), ((32, 32), (16, 32))) if request.param == "tiles" else whole():
        total.cache_clear()
        yield


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mask", ["length", "empty bias", "empty mask"])
def test_a_row_that_sees_nothing_is_zero_with_zero_gradient_and_minus_infinite_logsumexp(implementation, mask):
    arrays, _ = inputs(CASE)
    rest = {
        "length": {"query_seq_lengths": np.array([0])},
        "empty bias": {"bias": jnp.full((1, 1, 40, 1), -jnp.inf)},
        "empty mask": {"mask": np.zeros((1, 1, 40, 40), bool)},
    }[mask]
    (out, lse), grads = jax.jit(functools.partial(measure, rest=rest, implementation=implementation))(arrays)
    assert (out == 0).all()
    assert (lse == -jnp.inf).all()
    assert all((g == 0).all() for g in grads.values())


# No query before 30 sees key 35 under any of these masks.
NOT_SEEN = {
    "lengths": masks.Lengths(None, np.array([30])),
    "causal": masks.Causal(),
    "window": masks.Window(3, 3),
    "segments": masks.Segments(np.arange(40) // 10),
    "prefix": masks.PrefixLM(4),
    "pattern": masks.BlockSparse(np.tri(5, dtype=bool), 8),
    "dense": masks.Dense(np.tri(40, dtype=bool)),
    "causal offset": masks.Causal(np.array([1])),
}


@functools.cache
def total(implementation):
    """Gradients and value of all rows before 30, under a mask that comes with the call."""

    def value(arrays, mask):
        out, lse = call(arrays, {"mask": mask, "query_seq_lengths": np.array([30])}, implementation)
        return jnp.sum(out**2) + jnp.sum(lse[:, :30])

    return jax.jit(jax.value_and_grad(value))


def spoilt_and_clean(mask, implementation, bad):
    arrays, _ = inputs(CASE)
    spoilt = arrays | {"key": arrays["key"].at[:, 35:].set(bad), "value": arrays["value"].at[:, 35:].set(bad)}
    got, want = total(implementation)(spoilt, mask), total(implementation)(arrays, mask)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-5), got, want)
    assert all(jnp.any(g != 0) for g in got[1].values())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_key_that_is_not_finite_reaches_only_those_who_see_it(implementation):
    """One program for all masks, each picked at run time."""
    for n in range(len(NOT_SEEN)):
        for bad in (jnp.nan, jnp.inf, -jnp.inf, 1e38, -3e38):
            spoilt_and_clean(Pick(np.array([n], np.int32), tuple(NOT_SEEN.values())), implementation, bad)


@pytest.mark.parametrize("name", ["causal", "window", "prefix", "pattern"])
def test_a_key_that_is_not_finite_stays_out_of_blocks_known_while_tracing(name):
    spoilt_and_clean(NOT_SEEN[name], "xla", jnp.nan)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_key_that_is_not_finite_spoils_all_who_see_it(implementation):
    arrays, _ = inputs(CASE)
    spoilt = arrays | {"value": arrays["value"].at[0, 35, 0, 0].set(jnp.nan)}
    out, _ = jax.jit(lambda a: call(a, {"mask": masks.Causal()}, implementation))(spoilt)
    bad = np.isnan(out[0]).any(-1)
    assert bad[35:, 0].all()
    assert not bad[:35].any()
    assert not bad[:, 1].any()


DERIVATIVES = {
    "forward mode": lambda loss, x: jax.jvp(loss, (x,), (jnp.cos(x),)),
    "second derivative": lambda loss, x: jax.grad(
        lambda x: jnp.vdot(jax.grad(loss)(x), jnp.cos(jnp.arange(x.size).reshape(x.shape) % 7))
    )(x),
    "forward over reverse": lambda loss, x: jax.jvp(jax.grad(loss), (x,), (jnp.ones_like(x),)),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_no_masked_number_of_any_size_reaches_a_derivative_of_any_order(name, implementation):
    """Of the query, while keys and values that no query sees are NaN, infinite or huge; 130 queries are two blocks of
    `plain`, the second with padding.
    """
    arrays, _ = inputs(Attention(q_seq=130, kv_seq=133))
    mask = masks.Segments(jnp.zeros((1, 130), int), jnp.where(jnp.arange(133) < 100, 0, 1)[None]) & masks.Causal()

    @jax.jit
    def derivative(bad):
        key, value = (arrays[name].at[:, 100:].set(bad) for name in ("key", "value"))
        value = value.at[:, 100, 0, 0].set(0)

        def loss(query):
            out, lse = dot_product_attention(
                query,
                key,
                value,
                mask=mask,
                logits_soft_cap=2.0,
                return_residual=True,
                implementation=implementation,
            )
            return jnp.sum(jnp.sin(out)) + jnp.sum(lse)

        return DERIVATIVES[name](loss, arrays["query"])

    want = derivative(0.0)
    assert all(jnp.any(x != 0) for x in jax.tree.leaves(want))
    for bad in (jnp.nan, jnp.inf, 1e38, -3e38):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), derivative(bad), want)


@pytest.mark.parametrize("implementation", [*IMPLEMENTATIONS, "mosaic_tpu"])
def test_padding_of_a_block_is_in_no_segment(implementation, monkeypatch):
    """Keys of segment 0, which no query is in, while lengths fill no block."""
    arrays, _ = inputs(Attention(q_seq=37, kv_seq=41))
    dead = np.arange(41)[None] >= 20
    mask = masks.Segments(np.ones((1, 37), np.int32), np.where(dead, 0, 1).astype(np.int32))

    @jax.jit
    @jax.grad
    def gradient(arrays):
        return jnp.sum(call(arrays, {"mask": mask}, implementation)[0] ** 2)

    def spoilt(array, bad):
        return jnp.asarray(np.where(dead[0][:, None, None], np.float32(bad), array))

    with interpreted(monkeypatch) if implementation == "mosaic_tpu" else contextlib.nullcontext():
        want = gradient(arrays)
        for bad in (np.nan, np.inf, 1e38):
            got = gradient(arrays | {name: spoilt(arrays[name], bad) for name in ("key", "value")})
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), got, want)
