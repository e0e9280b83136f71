"""Attention and MLP in parallel."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check, _split
from eqxgen.nn.activation import Activation
from eqxgen.nn.attention.self_attention import Bias, Mask, join_heads, split_heads
from eqxgen.nn.drop import Dropout
from eqxgen.nn.embed.rope import AxialRoPE, RoPE, check_rope
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.norm.fused import RMSNorm


class ParallelAttention(eqx.Module):
    """`attention(norm(x)) + mlp(norm(x))` from one norm and two projections (ViT-22B; Dehghani et al. 2023,
    arXiv:2302.05442, section 2).

    One projection computes queries, keys, values and the hidden entries of the MLP; another projects both results back.
    Queries and keys are normalised. As in the paper, the norms have a scale and neither centring nor bias. The residual
    is added by the caller: `x + layer(x)`.

    Args:
        dim: width of a token, kept.
        heads: number of heads; it divides `dim`. By default dim // 64, at least 1.
        hidden_dim: inner width of the MLP; 4 * dim by default.
        activation: of the MLP, by name.
        dropout: rate on the attention probabilities, inside the op, and on the output.
        causal: token i attends to tokens 0 to i only.
        bias: adds biases to the projections. The paper has none on queries, keys and values.
        rope: rotary positions of queries and keys.
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of width `dim`.
    """

    norm: RMSNorm
    q_norm: RMSNorm
    k_norm: RMSNorm
    up: Projection  # outputs: queries, keys and values as in `SelfAttention`, then the MLP's hidden entries
    down: Projection
    activation: Activation
    dropout: Dropout
    rope: RoPE | AxialRoPE | None
    heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int | None = None,
        *,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        dropout: float = 0.0,
        causal: bool = False,
        bias: bool = True,
        rope: RoPE | AxialRoPE | None = None,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        _check.positive(dim=dim, hidden_dim=hidden_dim)
        heads = max(1, dim // 64) if heads is None else heads
        _check.positive(heads=heads)
        _check.divides(heads=heads, dim=dim)
        check_rope(rope, dim // heads)
        up_key, down_key = jr.split(key)
        self.up = Projection(dim, 3 * dim + hidden_dim, bias=bias, init=init, key=up_key)
        self.down = Projection(dim + hidden_dim, dim, bias=bias, init=init, key=down_key)
        self.norm, self.q_norm, self.k_norm = RMSNorm(dim), RMSNorm(dim // heads), RMSNorm(dim // heads)
        self.activation, self.dropout = Activation(activation), Dropout(dropout)
        self.rope, self.heads, self.causal = rope, heads, causal

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """`mask` and `bias` are arguments of the attention, as in `SelfAttention`."""
        _check.example(x, "seq", dim=self.down.out_dim)
        active = self.dropout.active(key, inference)
        probs_key, out_key = jr.split(key) if active and key is not None else (None, None)
        dim = x.shape[-1]
        qkv, hidden = jnp.split(self.up(self.norm(x)), [3 * dim], axis=-1)
        q, k, v = split_heads(qkv, self.heads, dim // self.heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            q, k = self.rope(q), self.rope(k)
        rate = self.dropout.rate if active else 0.0
        y = _split.attention(q, k, v, bias, mask, is_causal=self.causal, dropout_rate=rate, dropout_key=probs_key)
        y = self.down(jnp.concatenate([join_heads(y), self.activation(hidden)], -1))
        return self.dropout(y, key=out_key, inference=inference)
