"""Attention with keys and values from one small latent."""

import equinox as eqx
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from eqxgen.nn import _check, _split
from eqxgen.nn.attention.cache import KVCache
from eqxgen.nn.attention.cached import attend
from eqxgen.nn.attention.self_attention import join_heads
from eqxgen.nn.embed.rope import RoPE
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.norm.fused import RMSNorm
from eqxgen.rng import RNG


class LatentAttention(eqx.Module):
    """Causal multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1; DeepSeek-V3).

    The cache holds `kv_lora_rank + qk_rope_head_dim` numbers for a token: a latent, from which every head computes its
    keys and values, and one key with rotary position that all heads share. Decoding works on the latents: the product
    that makes keys is applied to the queries, and the product that makes values after the attention (`extend`).

    Args:
        dim: width of a token, kept.
        heads: number of heads.
        kv_lora_rank: size of the latent of keys and values.
        q_lora_rank: size of the latent of queries; None projects queries from the token directly.
        qk_nope_head_dim: size of a head's query and key without position.
        qk_rope_head_dim: size of those with rotary position; even.
        v_head_dim: size of a head's value.
        base, interleaved: of the `RoPE`; the published weights are interleaved.
        bias: adds biases to the projections to the latents and to the output projection.
        epsilon: of the norms of the latents.
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of width `dim`.
    """

    q_down: Projection | None
    q_norm: RMSNorm | None
    q_up: Projection  # outputs in the order (heads, without position then with, ...)
    kv_down: Projection  # outputs: the latent, then the shared key
    kv_norm: RMSNorm
    kv_up: Projection  # outputs in the order (heads, key then value, ...)
    out: Projection
    rope: RoPE
    heads: int = eqx.field(static=True)
    nope_dim: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_lora_rank: int = 512,
        q_lora_rank: int | None = None,
        qk_nope_head_dim: int = 128,
        qk_rope_head_dim: int = 64,
        v_head_dim: int = 128,
        base: float = 10_000.0,
        interleaved: bool = True,
        bias: bool = False,
        epsilon: float = 1e-6,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(
            dim=dim, heads=heads, kv_lora_rank=kv_lora_rank, qk_nope_head_dim=qk_nope_head_dim, v_head_dim=v_head_dim
        )
        keys = RNG(key)
        q_dim = heads * (qk_nope_head_dim + qk_rope_head_dim)
        self.rope = RoPE(qk_rope_head_dim, base=base, interleaved=interleaved)
        self.q_down = self.q_norm = None
        if q_lora_rank is not None:
            _check.positive(q_lora_rank=q_lora_rank)
            self.q_down = Projection(dim, q_lora_rank, bias=bias, init=init, key=next(keys))
            self.q_norm = RMSNorm(q_lora_rank, epsilon=epsilon)
        self.q_up = Projection(
            dim if q_lora_rank is None else q_lora_rank, q_dim, bias=False, init=init, key=next(keys)
        )
        self.kv_down = Projection(dim, kv_lora_rank + qk_rope_head_dim, bias=bias, init=init, key=next(keys))
        self.kv_norm = RMSNorm(kv_lora_rank, epsilon=epsilon)
        self.kv_up = Projection(
            kv_lora_rank, heads * (qk_nope_head_dim + v_head_dim), bias=False, init=init, key=next(keys)
        )
        self.out = Projection(heads * v_head_dim, dim, bias=bias, init=init, key=next(keys))
        self.heads, self.nope_dim = heads, qk_nope_head_dim

    @property
    def rank(self) -> int:
        return self.kv_up.in_dim

    def __call__(self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None) -> Float[Array, "seq dim"]:
        _check.example(x, "seq", dim=self.out.out_dim)
        q_nope, q_rope = self._queries(x, None)
        latent, k_rope = self._latents(x, None)
        kv = rearrange(self.kv_up(latent), "seq (heads features) -> seq heads features", heads=self.heads)
        k_nope, v = jnp.split(kv, [self.nope_dim], axis=-1)
        k = jnp.concatenate([k_nope, jnp.broadcast_to(k_rope, (*k_nope.shape[:2], k_rope.shape[-1]))], -1)
        y = _split.attention(jnp.concatenate([q_nope, q_rope], -1), k, v, is_causal=True)
        return self.out(join_heads(y))

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> KVCache:
        """An empty cache for `length` tokens: one shared row of latent and rotary key for each, and no values."""
        return KVCache(length, 1, self.rank + self.rope.head_dim, v_head_dim=0, dtype=dtype)

    def extend(
        self, x: Float[Array, "new dim"], cache: KVCache, *, count: int | Int[Array, ""] | None = None
    ) -> tuple[Float[Array, "new dim"], KVCache]:
        """The results of the next tokens, and the cache with them, as `SelfAttention.extend`.

        For head h with keys K c and values V c of a latent c, q . K c equals (K^T q) . c, and a mean of V c equals V
        times the mean of c: all heads attend to the same latents, which are never expanded (section 2.1.2). The
        products of a long prefill are wider in turn.
        """
        _check.example(x, "new", dim=self.out.out_dim)
        positions = cache.count + jnp.arange(x.shape[0], dtype=jnp.int32)
        q_nope, q_rope = self._queries(x, positions)
        weight = rearrange(self.kv_up.weight, "(heads features) rank -> heads features rank", heads=self.heads).astype(
            x.dtype
        )
        absorbed = jnp.einsum("shn,hnr->shr", q_nope, weight[:, : self.nope_dim])
        latent, k_rope = self._latents(x, positions)
        y, cache = attend(
            jnp.concatenate([absorbed, q_rope], -1),
            jnp.concatenate([latent[:, None], k_rope], -1),
            jnp.zeros((x.shape[0], 1, 0), x.dtype),
            cache,
            count=count,
            scale=(self.nope_dim + self.rope.head_dim) ** -0.5,
            shared=self.rank,
        )
        y = jnp.einsum("shr,hvr->shv", y, weight[:, self.nope_dim :])
        return self.out(join_heads(y)), cache

    def _queries(
        self, x: Array, positions: Array | None
    ) -> tuple[Float[Array, "seq heads nope"], Float[Array, "seq heads rope"]]:
        if self.q_down is not None and self.q_norm is not None:
            x = self.q_norm(self.q_down(x))
        q = rearrange(self.q_up(x), "seq (heads features) -> seq heads features", heads=self.heads)
        q_nope, q_rope = jnp.split(q, [self.nope_dim], axis=-1)
        return q_nope, self.rope(q_rope, positions)

    def _latents(
        self, x: Array, positions: Array | None
    ) -> tuple[Float[Array, "seq rank"], Float[Array, "seq 1 rope"]]:
        latent, k_rope = jnp.split(self.kv_down(x), [self.rank], axis=-1)
        return self.kv_norm(latent), self.rope(k_rope[:, None], positions)
