"""Self-attention on the fused op."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check, _split
from eqxgen.nn.attention.cache import KVCache
from eqxgen.nn.attention.cached import attend
from eqxgen.nn.drop import Dropout
from eqxgen.nn.embed.rope import AxialRoPE, RoPE, check_rope
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.norm.fused import RMSNorm

Mask = Bool[Array, "..."] | ops.masks.Mask
"""A boolean array that broadcasts to (heads, q_seq, kv_seq), or an expression of `eqxgen.ops.masks`."""
Bias = Float[Array, "..."] | ops.ALiBi
"""An array that broadcasts to (heads, q_seq, kv_seq) and is added to the logits, or an `ALiBi`."""


class SelfAttention(eqx.Module):
    """Multi-head self-attention of one sequence (Vaswani et al. 2017, section 3.2).

    Args:
        dim: width of a token, kept.
        heads: number of query heads; it divides `dim`, unless `head_dim` is given.
        head_dim: width of a head, as in models whose heads together are not as wide as a token; by default dim / heads.
        kv_heads: number of key and value heads; it divides `heads` (grouped queries, arXiv:2305.13245). By default
            `heads`.
        dropout: rate on the attention probabilities, inside the op, and on the output.
        probs_dropout: another rate on the probabilities, as GPT-2's `attn_pdrop`; by default `dropout`.
        causal: token i attends to tokens 0 to i only.
        bias: adds biases to the projections.
        window: token i attends to tokens less than `window` away: in a causal layer the last `window`, itself included;
            otherwise as many on each side.
        rope: rotary positions of queries and keys.
        scale: of the logits; by default 1 / sqrt(head_dim). T5's is 1.
        qk_norm: RMS norm of queries and keys over head_dim, before `rope` (Henry et al. 2020, arXiv:2010.04245, in the
            form of Qwen3).
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of width `dim`.
    """

    qkv: Projection  # outputs in the order (kv_heads, queries of the head then its key and value, head_dim)
    out: Projection
    dropout: Dropout
    probs_dropout: Dropout
    q_norm: RMSNorm | None
    k_norm: RMSNorm | None
    rope: RoPE | AxialRoPE | None
    heads: int = eqx.field(static=True)
    kv_heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    window: int | None = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        dropout: float = 0.0,
        probs_dropout: float | None = None,
        causal: bool = False,
        bias: bool = True,
        window: int | None = None,
        rope: RoPE | AxialRoPE | None = None,
        scale: float | None = None,
        qk_norm: bool = False,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        kv_heads = heads if kv_heads is None else kv_heads
        _check.positive(dim=dim, heads=heads, kv_heads=kv_heads, **({} if window is None else {"window": window}))
        head_dim = width_of_head(dim, heads, head_dim)
        _check.divides(kv_heads=kv_heads, heads=heads)
        check_rope(rope, head_dim)
        check_scale(scale)
        in_key, out_key = jr.split(key)
        self.qkv = Projection(dim, (heads + 2 * kv_heads) * head_dim, bias=bias, init=init, key=in_key)
        self.out = Projection(heads * head_dim, dim, bias=bias, init=init, key=out_key)
        self.dropout = Dropout(dropout)
        self.probs_dropout = Dropout(dropout if probs_dropout is None else probs_dropout)
        self.q_norm, self.k_norm = (RMSNorm(head_dim), RMSNorm(head_dim)) if qk_norm else (None, None)
        self.rope, self.heads, self.kv_heads, self.causal, self.window = rope, heads, kv_heads, causal, window
        self.scale = scale

    @property
    def head_dim(self) -> int:
        return self.out.in_dim // self.heads

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        positions: Int[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """Attention of every token.

        Args:
            x: the tokens.
            mask: a boolean array or an expression of `eqxgen.ops.masks`, such as `BlockSparse`, whose empty blocks are
                skipped.
            bias: added to the logits: the array of a `T5Bias`, or an `ALiBi`.
            positions: of the tokens, for `rope`; 0, 1, ... by default.
            key: of the dropout; required in training with dropout.
            inference: disables dropout.
        """
        _check.example(x, "seq", dim=self.qkv.in_dim)
        active = self.probs_dropout.active(key, inference)
        dropped = active or self.dropout.active(key, inference)
        probs_key, out_key = jr.split(key) if dropped and key is not None else (None, None)
        q, k, v = self._heads(x, positions)
        near = None if self.window is None else (self.window - 1, self.window - 1)
        y = _split.attention(
            q,
            k,
            v,
            bias=bias,
            mask=mask,
            scale=self.scale,
            is_causal=self.causal,
            local_window_size=near,
            dropout_rate=self.probs_dropout.rate if active else 0.0,
            dropout_key=probs_key,
        )
        return self.dropout(self.out(join_heads(y)), key=out_key, inference=inference)

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> KVCache:
        """An empty cache for `length` tokens; with a shorter window, a ring of `window` rows."""
        ring = self.window is not None and self.window < length
        return KVCache(
            self.window if ring and self.window else length, self.kv_heads, self.head_dim, dtype=dtype, ring=ring
        )

    def extend(
        self,
        x: Float[Array, "new dim"],
        cache: KVCache,
        *,
        count: int | Int[Array, ""] | None = None,
        bias: Bias | None = None,
        together: bool = False,
    ) -> tuple[Float[Array, "new dim"], KVCache]:
        """The results of the next tokens, and the cache with them: many tokens at first (prefill), then one at a time.

        The results equal those of a call on the whole sequence, without dropout.

        Args:
            x: the tokens at positions `cache.count`, `cache.count + 1`, ...
            cache: of `cache(length)`, or what the last call returned.
            count: number of real tokens, where x is padded at its end so that few lengths are compiled. The results of
                the padding are undefined, and the cache does not hold it.
            bias: as `eqxgen.nn.attention.cached.attend` takes it.
            together: the tokens see one another whatever their order, in a layer that is not causal: its calls on the
                whole sequence have a mask that is causal by blocks, and each block is one `extend`.

        Raises:
            ValueError: the layer is not causal, or it is and the tokens are `together`; the cache has no room. Inside a
                compiled program, where the count is not known, the result is NaN.
        """
        if not self.causal and not together:
            raise ValueError("extend needs causal=True: the result of a token must not depend on later tokens")
        if self.causal and together:
            raise ValueError("together needs causal=False: got a causal layer, whose tokens do not see later ones")
        _check.example(x, "new", dim=self.qkv.in_dim)
        q, k, v = self._heads(x, cache.count + jnp.arange(x.shape[0], dtype=jnp.int32))
        y, cache = attend(
            q, k, v, cache, count=count, window=self.window, bias=bias, scale=self.scale, together=together
        )
        return self.out(join_heads(y)), cache

    def _heads(self, x: Float[Array, "seq dim"], positions: Int[Array, " seq"] | None) -> tuple[Array, Array, Array]:
        """Queries (seq, heads, head_dim), keys and values (seq, kv_heads, head_dim)."""
        q, k, v = split_heads(self.qkv(x), self.kv_heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            q, k = self.rope(q, positions), self.rope(k, positions)
        return q, k, v


def width_of_head(dim: int, heads: int, head_dim: int | None) -> int:
    """The width of each head that was asked for; by default dim / heads, which must be whole."""
    if head_dim is None:
        _check.divides(heads=heads, dim=dim)
        return dim // heads
    _check.positive(head_dim=head_dim)
    return head_dim


def check_scale(scale: float | None) -> None:
    """The scale of the logits must be positive and finite where it is given."""
    if scale is not None:
        _check.above_zero(scale=scale)


def split_heads(qkv: Float[Array, "seq features"], kv_heads: int, head_dim: int) -> tuple[Array, Array, Array]:
    """Queries (seq, heads, head_dim), keys and values (seq, kv_heads, head_dim) from a projection to all three.

    Each key and value head is stored next to the queries that share it, so that a split of the projection by its
    outputs is a split by whole heads.
    """
    qkv = rearrange(
        qkv, "seq (kv_heads parts head_dim) -> seq kv_heads parts head_dim", kv_heads=kv_heads, head_dim=head_dim
    )
    # The gradient of a split is one concatenation; that of slices is a sum.
    q, k, v = jnp.split(qkv, (qkv.shape[2] - 2, qkv.shape[2] - 1), axis=2)
    join = lambda x: rearrange(x, "seq kv_heads shared head_dim -> seq (kv_heads shared) head_dim")
    return join(q), join(k), join(v)


def join_heads(y: Float[Array, "seq heads head_dim"]) -> Float[Array, "seq features"]:
    """The heads of each token side by side."""
    return rearrange(y, "seq heads head_dim -> seq (heads head_dim)")
