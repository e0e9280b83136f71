"""The table's rows for attention, caches and positions."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.layer_rows import Row, Wrong

KEY = jr.key(0)

LAYERS = {
    "SelfAttention, window": Row(lambda key: nn.SelfAttention(8, 2, window=2, key=key), (5, 8), ((5, 8),)),
    "SelfAttention, rotary and normalised": Row(
        lambda key: nn.SelfAttention(8, 2, causal=True, rope=nn.RoPE(4), qk_norm=True, key=key), (5, 8), ((5, 8),)
    ),
    "RoPE": Row(lambda key: nn.RoPE(4, key=key), (5, 2, 4), ((5, 2, 4),)),
    "RoPE, interleaved": Row(lambda key: nn.RoPE(4, interleaved=True, key=key), (5, 2, 4), ((5, 2, 4),)),
    "AxialRoPE": Row(lambda key: nn.AxialRoPE(4, (2, 3), key=key), (6, 2, 4), ((6, 2, 4),)),
}

ROWS = jnp.ones((3, 2, 4))

WRONG = [
    Wrong(lambda: nn.KVCache(0, 2, 4), "length must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.KVCache(4, 2, 5).append(ROWS, ROWS), r"k must have the cache's shape \('new', 2, 5\): got \(3, 2, 4\)"),
    Wrong(lambda: nn.KVCache(4, 2, 4).append(ROWS, ROWS, count=4), r"count must be in \[0, 3\], the number of new rows: got 4"),
    Wrong(lambda: nn.KVCache(2, 2, 4).append(ROWS, ROWS), "room for 3 more tokens: it holds 0 of at most length=2"),
    Wrong(lambda: nn.SelfAttention(8, 2, window=0, key=KEY), "window must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.SelfAttention(8, 2, rope=nn.RoPE(8), key=KEY), r"head_dim = dim / heads = 4 entries: got rope.head_dim=8"),
    Wrong(
        lambda: nn.SelfAttention(8, 2, key=KEY).extend(jnp.ones((1, 8)), nn.KVCache(4, 2, 4)),
        "extend needs causal=True",
    ),
    Wrong(
        lambda: nn.SelfAttention(8, 2, causal=True, key=KEY).extend(jnp.ones((1, 8)), nn.KVCache(4, 2, 4, ring=True)),
        "a ring of 4 rows forgets: it needs a window of at most as many tokens, got window=None",
    ),
    Wrong(lambda: nn.RoPE(5), "head_dim must be even, as RoPE turns pairs: got 5"),
    Wrong(lambda: nn.RoPE(4, base=1.0), "base must be greater than 1: got 1.0"),
    Wrong(lambda: nn.RoPE(4)(jnp.ones((3, 2, 6))), r"x must have shape \(seq, heads, head_dim=4\): got \(3, 2, 6\)"),
    Wrong(lambda: nn.AxialRoPE(6, (2, 2)), "head_dim must be a multiple of 4, .*: got 6"),
]
