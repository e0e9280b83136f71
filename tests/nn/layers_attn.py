"""The table's rows for attention, caches and positions."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from eqxgen.nn.attention.linear_attention import linear_attention
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)


def latent(key, **options):
    return nn.LatentAttention(
        8, 2, kv_lora_rank=3, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=3, key=key, **options
    )


LAYERS = {
    "NeighborhoodAttention": Row(lambda key: nn.NeighborhoodAttention(8, 2, kernel=3, key=key), (7, 8), ((7, 8),)),
    "NeighborhoodAttention on an image": Row(
        lambda key: nn.NeighborhoodAttention(8, 2, kernel=(3, 2), dilation=(1, 2), dropout=0.1, key=key),
        (5, 6, 8),
        ((5, 6, 8),),
        draws=True,
    ),
    "SelfAttention, window": Row(lambda key: nn.SelfAttention(8, 2, window=2, key=key), (5, 8), ((5, 8),)),
    "SelfAttention, rotary and normalised": Row(
        lambda key: nn.SelfAttention(8, 2, causal=True, rope=nn.RoPE(4), qk_norm=True, key=key), (5, 8), ((5, 8),)
    ),
    "SelfAttention, unscaled, heads of their own width": Row(
        lambda key: nn.SelfAttention(8, 3, kv_heads=1, head_dim=5, scale=1.0, causal=True, key=key), (5, 8), ((5, 8),)
    ),
    "RoPE": Row(lambda key: nn.RoPE(4, key=key), (5, 2, 4), ((5, 2, 4),)),
    "RoPE, scaled": Row(lambda key: nn.RoPE(4, scaling=nn.RoPEScaling(8.0, 64), key=key), (5, 2, 4), ((5, 2, 4),)),
    "RoPE, interleaved": Row(lambda key: nn.RoPE(4, interleaved=True, key=key), (5, 2, 4), ((5, 2, 4),)),
    "CrossAttention": Row(
        lambda key: nn.CrossAttention(8, 6, heads=2, dropout=0.1, key=key), (5, 8), ((5, 8), (3, 6)), draws=True
    ),
    "CrossAttention, unscaled, heads of their own width": Row(
        lambda key: nn.CrossAttention(8, 6, heads=3, head_dim=5, scale=1.0, key=key), (5, 8), ((5, 8), (3, 6))
    ),
    "CrossAttention, normalised": Row(
        lambda key: nn.CrossAttention(8, qk_norm=True, bias=False, key=key), (5, 8), ((5, 8), (3, 8))
    ),
    "ParallelAttention": Row(
        lambda key: nn.ParallelAttention(8, 2, dropout=0.1, key=key), (5, 8), ((5, 8),), draws=True
    ),
    "ParallelAttention, causal, rotary": Row(
        lambda key: nn.ParallelAttention(8, 2, causal=True, rope=nn.RoPE(4), key=key), (5, 8), ((5, 8),)
    ),
    "MultiheadAttention": Row(
        lambda key: nn.MultiheadAttention(2, 4, dropout_p=0.1, use_output_bias=True, key=key),
        (5, 4),
        ((5, 4), (3, 4), (3, 4)),
        draws=True,
    ),
    "AttentionPool": Row(lambda key: nn.AttentionPool(8, 2, hidden_dim=12, key=key), (8,), ((5, 8),)),
    "LinearAttention": Row(lambda key: nn.LinearAttention(8, 2, key=key), (5, 8), ((5, 8),)),
    "LinearAttention, causal": Row(
        lambda key: nn.LinearAttention(8, 2, causal=True, chunk=2, key=key), (5, 8), ((5, 8),)
    ),
    "LatentAttention": Row(lambda key: latent(key, q_lora_rank=3), (5, 8), ((5, 8),)),
    "LatentAttention without query latent": Row(
        lambda key: latent(key, interleaved=False, bias=True), (5, 8), ((5, 8),)
    ),
    "SinusoidalEmbedding": Row(lambda key: nn.SinusoidalEmbedding(6, key=key), (5, 6), ((5,),)),
    "TimestepEmbedding": Row(lambda key: nn.TimestepEmbedding(5, features=6, key=key), (5,), ((),)),
    "LearnedPositions": Row(lambda key: nn.LearnedPositions(7, 4, key=key), (5, 4), ((5, 4),)),
    "T5Bias": Row(lambda key: nn.T5Bias(2, buckets=8, max_distance=5, key=key), (2, 5, 5), ((5,),), ids=9),
    "FourierEmbedding": Row(lambda key: nn.FourierEmbedding(4, (3, 5), bands=2, key=key), (5, 4), ((5, 2),)),
    "FourierEmbedding, its own": Row(
        lambda key: nn.FourierEmbedding(10, (3, 2), bands=2, project=False, key=key), (10,), ((2,),)
    ),
    "RandomFourier": Row(lambda key: nn.RandomFourier(6, scale=0.5, key=key), (5, 6), ((5,),)),
    "AxialRoPE": Row(lambda key: nn.AxialRoPE(4, (2, 3), key=key), (6, 2, 4), ((6, 2, 4),)),
}

ROWS = jnp.ones((3, 2, 4))

WRONG = [
    Wrong(lambda: nn.NeighborhoodAttention(8, 2, kernel=(), key=KEY), "kernel must be one number or one for each axis"),
    Wrong(lambda: nn.NeighborhoodAttention(8, 2, kernel=0, key=KEY), "kernel must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.NeighborhoodAttention(8, 2, kernel=4, dilation=2, key=KEY)(jnp.ones((7, 8))),
        "kernel . dilation must be at most the size of its axis: got kernel=4, dilation=2 for 7 positions",
    ),
    Wrong(
        lambda: nn.NeighborhoodAttention(8, 2, kernel=(3, 3), key=KEY)(jnp.ones((7, 8))),
        r"x must be \(height, width, dim=8\): got shape \(7, 8\)",
    ),
    Wrong(
        lambda: nn.NeighborhoodAttention(8, 2, kernel=3, dilation=(1, 2), key=KEY),
        r"dilation must be one number or one for each of kernel=\(3,\): got \(1, 2\)",
    ),
    Wrong(lambda: nn.KVCache(0, 2, 4), "length must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.KVCache(4, 2, 5).append(ROWS, ROWS),
        r"k must have the cache's shape \('new', 2, 5\): got \(3, 2, 4\)",
    ),
    Wrong(
        lambda: nn.KVCache(4, 2, 4).append(ROWS, ROWS, count=4),
        r"count must be in \[0, 3\], the number of new rows: got 4",
    ),
    Wrong(lambda: nn.KVCache(2, 2, 4).append(ROWS, ROWS), "room for 3 more tokens: it holds 0 of at most length=2"),
    Wrong(lambda: nn.SelfAttention(8, 2, window=0, key=KEY), "window must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.SelfAttention(8, 2, rope=nn.RoPE(8), key=KEY),
        "head_dim = 4: got rope.head_dim=8",
    ),
    Wrong(
        lambda: nn.SelfAttention(8, 2, key=KEY).extend(jnp.ones((1, 8)), nn.KVCache(4, 2, 4)),
        "extend needs causal=True",
    ),
    Wrong(
        lambda: nn.SelfAttention(8, 2, causal=True, key=KEY).extend(jnp.ones((1, 8)), nn.KVCache(4, 2, 4, ring=True)),
        "a ring of 4 rows needs a window of at most as many tokens: got window=None",
    ),
    Wrong(lambda: nn.RoPEScaling(0.5), "factor must be at least 1: got 0.5"),
    Wrong(lambda: nn.RoPEScaling(2.0, 0), "original must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.RoPEScaling(2.0, low=4.0), "low must be less than high: got low=4.0, high=4.0"),
    Wrong(lambda: nn.SelfAttention(8, 2, head_dim=0, key=KEY), "head_dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.CrossAttention(8, heads=2, scale=0.0, key=KEY), "scale must be positive and finite: got 0.0"),
    Wrong(lambda: nn.RoPE(5), "head_dim must be even: got 5"),
    Wrong(lambda: nn.RoPE(4, base=1.0), "base must be greater than 1: got 1.0"),
    Wrong(lambda: nn.RoPE(4)(jnp.ones((3, 2, 6))), r"x must be \(seq, heads, head_dim=4\): got shape \(3, 2, 6\)"),
    Wrong(lambda: nn.AxialRoPE(6, (2, 2)), "head_dim must be a multiple of 4, .*: got 6"),
    Wrong(lambda: nn.CrossAttention(8, 0, key=KEY), "context_dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.CrossAttention(200, key=KEY), "heads must divide dim: got dim=200, heads=3"),
    Wrong(lambda: nn.ParallelAttention(8, 3, key=KEY), "heads must divide dim: got dim=8, heads=3"),
    Wrong(
        lambda: nn.ParallelAttention(8, 2, hidden_dim=0, key=KEY), "hidden_dim must be an integer of at least 1: got 0"
    ),
    Wrong(lambda: nn.ParallelAttention(8, 2, rope=nn.RoPE(8), key=KEY), "head_dim = 4: got rope.head_dim=8"),
    Wrong(lambda: nn.MultiheadAttention(2, 1, key=KEY), "qk_size must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.MultiheadAttention(0, 4, key=KEY), "num_heads must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.MultiheadAttention(1, 2, key=KEY)(
            *[jnp.ones((2, 2))] * 3, process_heads=lambda q, k, v: (q, k[:1], v)
        ),
        "process_heads must not change the shapes of the heads",
    ),
    Wrong(lambda: nn.LinearAttention(8, 2, chunk=0, key=KEY), "chunk must be an integer of at least 1: got 0"),
    Wrong(
        lambda: linear_attention(ROWS, ROWS[:2], ROWS[:2], causal=True), "needs as many queries as keys: got 3 and 2"
    ),
    Wrong(
        lambda: nn.LatentAttention(8, 2, kv_lora_rank=0, key=KEY),
        "kv_lora_rank must be an integer of at least 1: got 0",
    ),
    Wrong(
        lambda: nn.LatentAttention(8, 2, q_lora_rank=0, key=KEY), "q_lora_rank must be an integer of at least 1: got 0"
    ),
    Wrong(lambda: nn.LatentAttention(8, 2, qk_rope_head_dim=3, key=KEY), "head_dim must be even: got 3"),
    Wrong(lambda: nn.SinusoidalEmbedding(5), "dim must be even: got 5"),
    Wrong(lambda: nn.SinusoidalEmbedding(4, period=1.0), "period must be greater than 1: got 1.0"),
    Wrong(lambda: nn.SinusoidalEmbedding(2, shift=1), r"shift must be in \[0, dim / 2 = 1\): got 1"),
    Wrong(lambda: nn.TimestepEmbedding(4, features=3, key=KEY), "dim must be even: got 3"),
    Wrong(lambda: nn.sincos_table((2, 3), 6), r"a multiple of twice the number of axes: got dim=6, size=\(2, 3\)"),
    Wrong(lambda: nn.AttentionPool(8, 3, key=KEY), "heads must divide dim: got dim=8, heads=3"),
    Wrong(lambda: nn.AttentionPool(8, 2, key=KEY)(jnp.ones((5, 4))), r"x must be \(seq, dim=8\): got shape \(5, 4\)"),
    Wrong(lambda: nn.resized_positions(jnp.ones((2, 3, 4)), 0, 3), "rows must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.LearnedPositions(3, 4, key=KEY)(jnp.ones((4, 4))), "x must have at most length=3 tokens: got 4"),
    Wrong(
        lambda: nn.LearnedPositions(3, 4, key=KEY)(jnp.ones((2, 4)), 2),
        "start must leave room for 2 tokens among length=3 .*: got 2",
    ),
    Wrong(
        lambda: nn.LearnedPositions(3, 4, key=KEY)(jnp.ones((2, 5))), r"x must be \(seq, dim=4\): got shape \(2, 5\)"
    ),
    Wrong(lambda: nn.T5Bias(2, buckets=6, key=KEY), "buckets must be a multiple of 4, as causal=False: got 6"),
    Wrong(
        lambda: nn.T5Bias(2, buckets=8, max_distance=2, key=KEY),
        "max_distance must be greater than the 2 distances .*: got 2",
    ),
    Wrong(lambda: nn.alibi(0), "heads must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.FourierEmbedding(4, (2, 3), bands=2, project=False, key=KEY),
        r"axes \* \(2 \* bands \+ 1\) = 10: got dim=4",
    ),
    Wrong(lambda: nn.FourierEmbedding(4, (2, 0), key=KEY), r"size\[1\] must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.FourierEmbedding(4, (2, 3), key=KEY)(jnp.ones(3)), r"one entry for each of 2 axes: got shape \(3,\)"
    ),
    Wrong(lambda: nn.RandomFourier(6, scale=0.0, key=KEY), "scale must be positive and finite: got 0.0"),
    Wrong(lambda: nn.RandomFourier(5, key=KEY), "dim must be even: got 5"),
]
