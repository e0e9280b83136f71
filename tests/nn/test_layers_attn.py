"""Attention that goes on from a cache, and what is particular to the layers of attention and position."""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from einops import rearrange

from eqxgen import nn, ops
from eqxgen.nn.attention.cached import attend
from eqxgen.nn.attention.linear_attention import linear_attention
from eqxgen.nn.embed import rope
from tests import oracles
from tests.oracles.attn import ALIBI, LATENT, T5

KEPT = oracles.load("attn")
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
    if layer.q_norm is None:
        return layer
    # Scales that are all one would hide a norm that is left out.
    scales = lambda layer: (layer.q_norm.scale, layer.k_norm.scale)
    return eqx.tree_at(scales, layer, (jr.normal(KEY, (4,)), jr.normal(jr.key(3), (4,))))


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def moved(layer, x, other):
    """Tokens whose result differs with `other` in place of x."""
    return np.asarray(
        eqx.filter_jit(lambda layer, x, other: jnp.abs(layer(other) - layer(x)).max(-1) > 1e-6)(layer, x, other)
    )


def with_weights(layer, **arrays):
    """The layer with other arrays at dotted paths."""
    for path, array in arrays.items():
        where = lambda layer, path=path: functools.reduce(getattr, path.split("."), layer)
        assert where(layer).shape == array.shape, path
        layer = eqx.tree_at(where, layer, jnp.asarray(array))
    return layer


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

    wanted = eqx.filter_jit(layer)(x)
    for count in (2, 5):
        first, steps, cache = decode(x, jnp.asarray(count))
        close(first[:count], wanted[:count])
        close(steps[: SEQ - 5], wanted[count : count + SEQ - 5])
        assert int(cache.count) == count
    assert len(traces) == 1


def pad(x, count):
    """Large numbers behind the first `count` rows: a layer that reads them shows it."""
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
    close(found, eqx.filter_jit(layer)(x))
    assert cache.ring == (name == "window")


def test_caches_of_unlike_fill_map_over_a_batch():
    layer, x = layer_of("window"), jr.normal(jr.key(1), (2, SEQ, 16))
    counts = jnp.asarray([1, 4])

    def decode(x, count):
        _, cache = layer.extend(pad(x[:5], count), layer.cache(SEQ), count=count)
        return layer.extend(jax.lax.dynamic_slice_in_dim(x, count, 1), cache)[0]

    y = jax.jit(jax.vmap(decode))(x, counts)
    wanted = jax.jit(jax.vmap(layer))(x)
    close(y[:, 0], wanted[jnp.arange(2), counts])


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

    @jax.jit
    def two(x):
        y, cache = layer.extend(x, layer.cache(8, jnp.bfloat16))
        return y, *layer.extend(x[:1], cache)

    y, z, cache = two(x)
    assert (y.dtype, z.dtype, cache.k.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(y, eqx.filter_jit(layer)(x), atol=0.02)


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

    close(in_parts(q, k, v), wanted)


@pytest.mark.parametrize("causal", [True, False])
def test_a_window_sees_tokens_less_than_its_size_away(causal):
    layer = nn.SelfAttention(8, 2, causal=causal, window=3, key=KEY)
    x = jr.normal(jr.key(1), (9, 8))
    changed = moved(layer, x, x.at[4].add(1.0))
    assert np.flatnonzero(changed).tolist() == ([4, 5, 6] if causal else [2, 3, 4, 5, 6])


def test_grouped_rotary_attention_is_llamas():
    kept = KEPT["llama"]
    layer = nn.SelfAttention(16, 4, kv_heads=2, causal=True, bias=False, rope=nn.RoPE(4), key=KEY)
    q, k, v = (kept[f"{name}_proj.weight"].reshape(2, -1, 4, 16) for name in "qkv")
    weights = {"qkv.weight": np.concatenate([q, k, v], 1).reshape(-1, 16), "out.weight": kept["o_proj.weight"]}
    close(eqx.filter_jit(with_weights(layer, **weights))(jnp.asarray(kept["x"])), kept["y"])


def test_cross_attention_is_torchs():
    kept = KEPT["cross"]
    kv = lambda k, v: np.stack([k.reshape(2, 4, -1), v.reshape(2, 4, -1)], 1)
    biases = np.split(kept["in_proj_bias"], 3)
    weights = {
        "q.weight": kept["q_proj_weight"],
        "q.bias": biases[0],
        "kv.weight": kv(kept["k_proj_weight"], kept["v_proj_weight"]).reshape(16, 6),
        "kv.bias": kv(*biases[1:]).reshape(16),
        "out.weight": kept["out_proj.weight"],
        "out.bias": kept["out_proj.bias"],
    }
    layer = with_weights(nn.CrossAttention(8, 6, heads=2, key=KEY), **weights)
    close(
        eqx.filter_jit(layer)(*(jnp.asarray(kept[name]) for name in ("x", "context")), mask=jnp.asarray(kept["mask"])),
        kept["y"],
    )


@pytest.mark.parametrize("name", LATENT)
def test_latent_attention_is_deepseeks_and_decodes_on_its_latents(name):
    kept, options = KEPT[f"latent {name}"], LATENT[name]
    sizes = {"kv_lora_rank": 5, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 3}
    layer = nn.LatentAttention(12, 2, **sizes, **options, key=KEY)
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_up": "kv_b_proj", "out": "o_proj", "q_up": "q_proj"}
    weights = {"kv_norm.scale": kept["kv_a_layernorm.weight"]}
    if options["q_lora_rank"]:
        names |= {"q_down": "q_a_proj", "q_up": "q_b_proj"}
        weights["q_norm.scale"] = kept["q_a_layernorm.weight"]
    layer = with_weights(
        layer, **weights, **{f"{ours}.weight": kept[f"{theirs}.weight"] for ours, theirs in names.items()}
    )
    x = jnp.asarray(kept["x"])
    close(eqx.filter_jit(layer)(x), kept["y"])

    @eqx.filter_jit
    def decode(x, count):
        first, cache = layer.extend(pad(x[:4], count), layer.cache(SEQ), count=count)

        def step(cache, i):
            y, cache = layer.extend(jax.lax.dynamic_slice_in_dim(x, i, 1), cache)
            return cache, y

        return first, jax.lax.scan(step, cache, count + jnp.arange(4))[1][:, 0]

    first, steps = decode(x, jnp.asarray(3))
    close(first[:3], kept["y"][:3])
    close(steps, kept["y"][3:])
    assert [leaf.shape for leaf in jax.tree.leaves(layer.cache(9))] == [(9, 1, 5 + 4), (9, 1, 0), ()]


def test_interleaved_rotary_positions_are_gptjs_and_the_sines_behind_them_too():
    kept = KEPT["gptj"]
    close(nn.RoPE(8, interleaved=True)(jnp.asarray(kept["x"])), kept["y"])
    close(nn.SinusoidalEmbedding(8)(jnp.arange(len(kept["table"]))), kept["table"])
    close(nn.sincos_table((len(kept["table"]),), 8), kept["table"])


@pytest.mark.parametrize("layer", [nn.RoPE(8), nn.AxialRoPE(8, (20, 20))], ids=["sequence", "grid"])
def test_rotary_positions_turn_alike_from_a_table_in_the_program_and_by_positions_given(layer, monkeypatch):
    x = jr.normal(KEY, (400, 2, 8))
    table, given = (jax.jit(layer)(*arguments) for arguments in ((x,), (x, jnp.arange(400))))
    monkeypatch.setattr(rope, "LARGEST", 0)
    close(table, jax.jit(lambda x: layer(x))(x))
    close(table, given)


@pytest.mark.parametrize("name", T5)
def test_the_relative_bias_is_t5s(name):
    causal, buckets, max_distance = T5[name]
    kept = KEPT[f"t5 {name}"]
    layer = nn.T5Bias(2, buckets=buckets, max_distance=max_distance, causal=causal, key=KEY)
    layer = with_weights(layer, **{"table.weight": kept["weight"]})
    close(eqx.filter_jit(layer)(129 + jnp.arange(3), jnp.arange(260)), kept["y"])


def test_a_relative_bias_plugs_into_attention_and_its_decoding():
    layer, x = nn.SelfAttention(8, 2, causal=True, key=KEY), jr.normal(jr.key(1), (6, 8))
    bias = nn.T5Bias(2, buckets=4, max_distance=4, causal=True, init=jax.nn.initializers.normal(1.0), key=KEY)

    @jax.jit
    def both(x):
        positions = jnp.arange(6)
        first, cache = layer.extend(x[:4], layer.cache(6), bias=bias(positions[:4], positions))
        last, _ = layer.extend(x[4:5], cache, bias=bias(cache.count[None], positions))
        return layer(x, bias=bias(positions)), jnp.concatenate([first, last]), layer(x)

    full, parts, without = both(x)
    close(parts, full[:5])
    assert not np.allclose(full, without, atol=1e-3)


@pytest.mark.parametrize("heads", ALIBI)
def test_alibis_slopes_are_the_authors_for_any_number_of_heads(heads):
    close(nn.alibi(heads).slopes, KEPT["alibi"][str(heads)])


def test_alibi_plugs_into_attention():
    layer, x = nn.SelfAttention(6, 3, causal=True, key=KEY), jr.normal(jr.key(1), (5, 6))
    distance = jnp.abs(jnp.arange(5)[:, None] - jnp.arange(5)[None])
    slopes = jnp.asarray([2.0**-4, 2.0**-8, 2.0**-2])  # of two heads, and the first of four
    both = lambda x: (
        layer(x, bias=nn.alibi(3)),
        layer(x, bias=-slopes[:, None, None] * distance[None].astype(jnp.float32)),
    )
    close(*jax.jit(both)(x))


def test_fourier_features_are_perceivers_though_the_seeds_crashed():
    raw = nn.FourierEmbedding(2 * (2 * 3 + 1), (4, 5), bands=3, project=False, key=KEY)
    close(raw().reshape(20, -1), KEPT["perceiver"]["y"])
    assert nn.FourierEmbedding(128, size=(256, 256), key=KEY).dim == 128
    projected = nn.FourierEmbedding(6, size=(4, 5), key=KEY)
    close(projected(projected.grid()[1, 2]), projected()[1, 2])


def test_axial_positions_are_the_rotary_ones_of_row_and_column():
    x = jr.normal(KEY, (6, 2, 8))
    y = nn.AxialRoPE(8, (2, 3))(x)
    half = nn.RoPE(4, base=100.0, interleaved=True)
    close(y[..., :4], half(x[..., :4], jnp.arange(6) // 3))
    close(y[..., 4:], half(x[..., 4:], jnp.arange(6) % 3))
    close(nn.AxialRoPE(8, (2, 3))(x[4:5], jnp.asarray([4])), y[4:5])


def test_grid_positions_have_the_column_first_as_maes_and_dits():
    table = nn.sincos_table((3, 5), 8)
    rates = 10_000.0 ** -(np.arange(2) / 2)
    for row, column in ((0, 0), (2, 1), (1, 4)):
        close(table[row, column], np.concatenate([f(at * rates) for at in (column, row) for f in (np.sin, np.cos)]))


def test_conventions_of_times_are_those_of_dit_and_ddpm():
    time = jnp.asarray(700.0)
    dit = np.exp(-np.log(10_000) * np.arange(4) / 4)
    close(
        nn.TimestepEmbedding(3, features=8, key=KEY).waves(time),
        np.concatenate([np.cos(700 * dit), np.sin(700 * dit)]).astype(np.float32),
    )
    ddpm = np.exp(-np.log(10_000) * np.arange(4) / 3)
    found = nn.TimestepEmbedding(3, features=8, flip=False, shift=1, key=KEY).waves(time)
    np.testing.assert_allclose(
        found, np.concatenate([np.sin(700 * ddpm), np.cos(700 * ddpm)]), atol=1e-4
    )  # 700 in float32
    assert nn.TimestepEmbedding(3, key=KEY)(time, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_random_fourier_features_are_the_definition_and_their_frequencies_stay():
    layer, x = nn.RandomFourier(6, scale=2.0, key=KEY), jnp.asarray([0.3, -1.0])
    angles = 2 * np.pi * np.asarray(x)[:, None] * np.asarray(layer.frequencies)
    close(layer(x), np.concatenate([np.cos(angles), np.sin(angles)], -1))
    assert not eqx.filter_grad(lambda layer: jnp.sum(layer(x) ** 3))(layer).frequencies.any()
    assert float(jnp.std(nn.RandomFourier(4000, key=KEY).frequencies)) == pytest.approx(16, rel=0.1)


def test_parallel_attention_honours_causal_which_the_seeds_ignored():
    x = jr.normal(jr.key(1), (5, 8))
    for causal in (True, False):
        layer = nn.ParallelAttention(8, 2, causal=causal, key=KEY)
        assert moved(layer, x, x.at[3].set(1.0)).tolist() == [not causal] * 3 + [True, True]


def test_parallel_attention_is_attention_and_mlp_of_one_norm():
    layer, x = nn.ParallelAttention(8, 2, hidden_dim=6, key=KEY), jr.normal(jr.key(1), (5, 8))
    attention = nn.SelfAttention(8, 2, qk_norm=True, key=KEY)
    mlp = nn.MLP(8, 6, key=KEY)
    up, down, zero = layer.up.weight, layer.down.weight, jnp.zeros(8)
    attention = with_weights(attention, **{"qkv.weight": up[:24], "out.weight": down[:, :8], "out.bias": zero})
    mlp = with_weights(mlp, **{"up.weight": up[24:], "down.weight": down[:, 8:], "down.bias": zero})
    close(*jax.jit(lambda x: (layer(x), attention(layer.norm(x)) + mlp(layer.norm(x))))(x))


OPTIONS = {
    "defaults": ({"num_heads": 2, "query_size": 8}, (8, 8, 8)),
    "every size": (
        {"num_heads": 2, "query_size": 6, "key_size": 5, "value_size": 4, "output_size": 3, "qk_size": 7, "vo_size": 2}
        | {f"use_{name}_bias": True for name in ("query", "key", "value", "output")},
        (6, 5, 4),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_multihead_attention_is_equinoxs_with_its_weights(name):
    options, sizes = OPTIONS[name]
    theirs, ours = eqx.nn.MultiheadAttention(**options, key=KEY), nn.MultiheadAttention(**options, key=jr.key(5))
    ours = jax.tree.unflatten(jax.tree.structure(ours), jax.tree.leaves(theirs))
    q, k, v = (jr.normal(jr.key(i), (seq, size)) for i, (seq, size) in enumerate(zip((3, 5, 5), sizes)))
    turned = lambda q, k, v: (q * 2, jnp.flip(k, 0), v + 1)
    calls = [
        (None, None),
        (jnp.tril(jnp.ones((3, 5), bool)), turned),
        (jr.bernoulli(KEY, 0.7, (2, 3, 5)).at[:, :, 0].set(True), None),
    ]
    every = eqx.filter_jit(lambda layer, *x: [layer(*x, mask, process_heads=process) for mask, process in calls])
    for found, wanted in zip(every(ours, q, k, v), every(theirs, q, k, v)):
        close(found, wanted)
    assert inspect.signature(type(ours).__init__) == inspect.signature(type(theirs).__init__)
    assert list(inspect.signature(ours.__call__).parameters) == list(inspect.signature(theirs.__call__).parameters)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_linear_attention_is_its_quadratic_form(chunk):
    q, k, v = (jr.normal(jr.key(i), (7, 2, size)) for i, size in enumerate((4, 4, 3)))
    phi = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
    weights = np.einsum("qhd,khd->hqk", phi(np.asarray(q)), phi(np.asarray(k)))
    for causal in (False, True):
        allowed = np.tril(weights) if causal else weights
        wanted = np.einsum("hqk,khv->qhv", allowed / allowed.sum(-1, keepdims=True), np.asarray(v))
        close(jax.jit(lambda *x, causal=causal: linear_attention(*x, causal=causal, chunk=chunk))(q, k, v), wanted)


def test_a_block_sparse_mask_plugs_into_attention():
    layer, x = nn.SelfAttention(8, 2, key=KEY), jr.normal(jr.key(1), (6, 8))
    pattern = ops.masks.BlockSparse(np.eye(3, dtype=bool), 2)
    close(*jax.jit(lambda x: (layer(x, mask=pattern)[2:4], layer(x[2:4])))(x))


def test_learned_positions_go_on_from_a_start_and_are_nan_beyond_the_end():
    layer, x = nn.LearnedPositions(5, 4, key=KEY), jr.normal(jr.key(1), (5, 4))
    close(layer(x[3:], 3), layer(x)[3:])
    with pytest.raises(ValueError, match="start"):
        layer(x[3:], 4)
    y = eqx.filter_jit(layer)(x[3:], jnp.asarray(4))
    assert jnp.isnan(y).all(-1).tolist() == [False, True]


def test_attention_pooling_is_attention_of_the_probe_then_an_mlp():
    layer, x = nn.AttentionPool(8, 2, hidden_dim=12, key=KEY), jr.normal(jr.key(1), (5, 8))
    layer = jax.tree.map(lambda a: a + 0.1 if eqx.is_inexact_array(a) else a, layer)
    both = layer.attention.qkv
    parts = rearrange(both(jnp.concatenate([layer.probe, x])), "s (h p d) -> p s h d", h=2, p=3)
    q, k, v = parts[0, :1], parts[1, 1:], parts[2, 1:]
    weights = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / 2, axis=-1)
    y = layer.attention.out(jnp.einsum("hqk,khd->qhd", weights, v).reshape(1, 8))[0]
    np.testing.assert_allclose(layer(x), y + layer.mlp(layer.norm(y[None])[0]), rtol=1e-5, atol=1e-6)


def test_neighborhood_attention_is_attention_by_hand_to_the_window():
    layer = nn.NeighborhoodAttention(8, 2, kernel=(3, 2), dilation=(1, 2), key=jr.key(0))
    x = jr.normal(jr.key(1), (5, 6, 8))

    @eqx.filter_jit
    def both(layer, x):
        dense = jnp.asarray(ops.masks.Neighborhood((5, 6), (3, 2), (1, 2)).matrix())
        return layer(x), layer.attention(x.reshape(30, 8), mask=dense).reshape(x.shape)

    found, wanted = both(layer, x)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
