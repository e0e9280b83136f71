"""Attention layers, on the fused op."""

import equinox as eqx
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.drop import Dropout
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class SelfAttention(eqx.Module):
    """Multi-head self-attention of one sequence (Vaswani et al. 2017, section 3.2).

    Args:
        dim: width of a token, kept.
        heads: number of query heads; it divides `dim`.
        kv_heads: number of key and value heads; it divides `heads` (grouped queries, arXiv:2305.13245). By default `heads`.
        dropout: rate on the attention probabilities, inside the op, and on the output.
        causal: whether token i sees tokens 0 to i alone.
        bias: whether the projections have biases.
        init: how the weights are drawn.
    """

    qkv: Projection  # outputs in the order (kv_heads, queries of the head then its key and value, head_dim)
    out: Projection
    dropout: Dropout
    heads: int = eqx.field(static=True)
    kv_heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        bias: bool = True,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        kv_heads = heads if kv_heads is None else kv_heads
        _check.positive(dim=dim, heads=heads, kv_heads=kv_heads)
        _check.divides(heads=heads, dim=dim)
        _check.divides(kv_heads=kv_heads, heads=heads)
        in_key, out_key = jr.split(key)
        self.qkv = Projection(dim, dim + 2 * kv_heads * (dim // heads), bias=bias, init=init, key=in_key)
        self.out = Projection(dim, dim, bias=bias, init=init, key=out_key)
        self.dropout = Dropout(dropout)
        self.heads, self.kv_heads, self.causal = heads, kv_heads, causal

    @property
    def head_dim(self) -> int:
        return self.out.in_dim // self.heads

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *,
        mask: "Bool[Array, '...'] | ops.masks.Mask | None" = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """`mask` is whatever `eqxgen.ops.dot_product_attention` takes: a boolean array or an expression of `eqxgen.ops.masks`."""
        active = self.dropout.active(key, inference)
        probs_key, out_key = jr.split(key) if active and key is not None else (None, None)
        # Each key and value head beside the queries that share it, so that a split of the projection by its outputs is one by whole heads.
        qkv = rearrange(
            self.qkv(x), "seq (kv_heads parts head_dim) -> seq kv_heads parts head_dim", kv_heads=self.kv_heads, head_dim=self.head_dim
        )
        q = rearrange(qkv[:, :, :-2], "seq kv_heads shared head_dim -> seq (kv_heads shared) head_dim")
        k, v = qkv[:, :, -2], qkv[:, :, -1]
        y = ops.dot_product_attention(
            q, k, v, mask=mask, is_causal=self.causal, dropout_rate=self.dropout.rate if active else 0.0, dropout_key=probs_key
        )
        return self.dropout(self.out(rearrange(y, "seq heads head_dim -> seq (heads head_dim)")), key=out_key, inference=inference)
