"""Attention that goes on from a cache, and what is particular to the layers of attention and position."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn, ops
from eqxgen.nn.cached_attention import attend

KEY = jr.key(0)
SEQ = 11

CACHED = {
    "plain": {},
    "grouped": {"kv_heads": 2, "bias": False},
    "rotary": {"rope": nn.RoPE(4)},
    "normalised": {"rope": nn.RoPE(4, interleaved=True), "qk_norm": True, "kv_heads": 1},
    "window": {"window": 3, "rope": nn.RoPE(4), "kv_heads": 2},
}


def layer_of(name):
    layer = nn.SelfAttention(16, 4, causal=True, key=KEY, **CACHED[name])
    # Scales that are all one would hide a norm that is left out.
    return (
        layer
        if layer.q_scale is None
        else eqx.tree_at(lambda a: (a.q_scale, a.k_scale), layer, (jr.normal(KEY, (4,)), jr.normal(jr.key(3), (4,))))
    )


@pytest.mark.parametrize("name", CACHED)
def test_a_padded_prefill_and_steps_are_the_full_forward_and_compile_once(name):
    layer, x = layer_of(name), jr.normal(jr.key(1), (SEQ, 16))
    traces = []

    @eqx.filter_jit
    def decode(x, count):
        traces.append(x.shape)
        first, cache = layer.extend(pad(x[:6], count), layer.cache(SEQ), count=count)

        def step(cache, i):
            y, cache = layer.extend(jax.lax.dynamic_slice_in_dim(x, i, 1), cache)
            return cache, y[0]

        return first, jax.lax.scan(step, cache, count + jnp.arange(SEQ - 5))[1], cache

    wanted = layer(x)
    for count in (2, 5):
        first, steps, cache = decode(x, jnp.asarray(count))
        np.testing.assert_allclose(first[:count], wanted[:count], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(steps[: SEQ - 5], wanted[count : count + SEQ - 5], rtol=1e-5, atol=1e-5)
        assert int(cache.count) == count
    assert len(traces) == 1


def pad(x, count):
    """Large numbers behind the first `count` rows: whoever reads them shows it."""
    return jnp.where(jnp.arange(x.shape[0])[:, None] < count, x, 1e3)


@pytest.mark.parametrize("name", ["normalised", "window"])
def test_a_cache_filled_in_unequal_parts_is_the_full_forward(name):
    layer, x = layer_of(name), jr.normal(jr.key(1), (SEQ, 16))

    @eqx.filter_jit
    def in_parts(x):
        cache, found = layer.cache(SEQ), []
        for start, stop in ((0, 2), (2, 7), (7, 8), (8, SEQ)):  # the second part is longer than the ring
            y, cache = layer.extend(x[start:stop], cache)
            found.append(y)
        return jnp.concatenate(found), cache

    found, cache = in_parts(x)
    np.testing.assert_allclose(found, layer(x), rtol=1e-5, atol=1e-5)
    assert cache.ring == (name == "window")


def test_caches_of_unlike_fill_map_over_a_batch():
    layer, x = layer_of("window"), jr.normal(jr.key(1), (2, SEQ, 16))
    counts = jnp.asarray([1, 4])

    def decode(x, count):
        _, cache = layer.extend(pad(x[:5], count), layer.cache(SEQ), count=count)
        return layer.extend(jax.lax.dynamic_slice_in_dim(x, count, 1), cache)[0]

    y = jax.jit(jax.vmap(decode))(x, counts)
    wanted = jax.vmap(layer)(x)
    np.testing.assert_allclose(y[:, 0], wanted[jnp.arange(2), counts], rtol=1e-5, atol=1e-5)


def test_a_ring_keeps_the_last_rows_and_none_of_the_padding():
    rows = jnp.arange(1.0, 8)[:, None, None]
    cache = nn.KVCache(3, 1, 1, ring=True).append(rows, -rows, count=5)
    assert cache.positions().tolist() == [3, 4, 2]
    assert cache.k[:, 0, 0].tolist() == [4.0, 5.0, 3.0]
    cache = cache.append(rows[:1], rows[:1], count=0)
    assert (int(cache.count), cache.v[:, 0, 0].tolist()) == (5, [-4.0, -5.0, -3.0])
    assert nn.KVCache(3, 1, 1, ring=True).positions().tolist() == [-1, -1, -1]


def test_a_full_cache_is_an_error_and_nan_where_its_count_is_not_known():
    layer, x = layer_of("rotary"), jr.normal(jr.key(1), (4, 16))
    _, cache = layer.extend(x[:3], layer.cache(3))
    with pytest.raises(ValueError, match="the cache must have room for 1 more tokens: it holds 3 of at most length=3"):
        layer.extend(x[3:], cache)
    for rows in (x[3:], x[:2]):
        y, after = eqx.filter_jit(layer.extend)(rows, cache)
        assert jnp.isnan(y).all()
        np.testing.assert_array_equal(after.k, cache.k)


def test_a_half_precision_cache_gives_the_dtype_of_the_tokens():
    layer, x = layer_of("grouped"), jr.normal(jr.key(1), (4, 16))
    y, cache = layer.extend(x, layer.cache(8, jnp.bfloat16))
    z, cache = layer.extend(x[:1], cache)
    assert (y.dtype, z.dtype, cache.k.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(y, layer(x), atol=0.02)


@pytest.mark.parametrize("ring", [False, True])
def test_alibi_goes_on_from_a_cache(ring):
    q, k, v = (jr.normal(jr.key(i), (SEQ, 2, 4)) for i in range(3))
    alibi = ops.ALiBi(jnp.asarray([0.5, 0.1]))
    wanted = ops.dot_product_attention(q, k, v, bias=alibi, is_causal=True, local_window_size=(3, 0) if ring else None)

    @jax.jit
    def in_parts(q, k, v):
        cache, found = nn.KVCache(4 if ring else SEQ, 2, 4, ring=ring), []
        for part in (slice(0, 6), slice(6, 7), slice(7, SEQ)):
            y, cache = attend(q[part], k[part], v[part], cache, bias=alibi, window=4 if ring else None)
            found.append(y)
        return jnp.concatenate(found)

    np.testing.assert_allclose(in_parts(q, k, v), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_window_sees_tokens_less_than_its_size_away(causal):
    layer = nn.SelfAttention(8, 2, causal=causal, window=3, key=KEY)
    x = jr.normal(jr.key(1), (9, 8))
    changed = jnp.abs(layer(x.at[4].add(1.0)) - layer(x)).max(-1) > 1e-6
    assert jnp.flatnonzero(changed).tolist() == ([4, 5, 6] if causal else [2, 3, 4, 5, 6])
