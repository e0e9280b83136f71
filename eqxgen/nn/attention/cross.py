"""Attention of one sequence to another."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.attention.self_attention import Bias, Mask, check_scale, join_heads, width_of_head
from eqxgen.nn.drop import Dropout
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.norm.fused import RMSNorm
from eqxgen.rng import RNG


class KeysValues(eqx.Module):
    """Keys and values of a context, of one `CrossAttention`."""

    k: Float[Array, "kv_seq heads head_dim"]
    v: Float[Array, "kv_seq heads head_dim"]


class CrossAttention(eqx.Module):
    """Multi-head attention from the tokens of one sequence to those of another (Vaswani et al. 2017, section 3.2.3).

    Args:
        dim: width of a token, kept.
        context_dim: width of the other sequence's tokens; `dim` by default.
        heads: number of heads; it divides `dim`, unless `head_dim` is given. By default dim // 64, at least 1.
        head_dim, scale: width of a head and scale of the logits, as in `SelfAttention`.
        dropout: rate on the attention probabilities, inside the op, and on the output.
        bias: adds biases to the projections.
        qk_norm: RMS norm of queries and keys, as in `SelfAttention`.
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x or context is not one sequence of its width.
    """

    q: Projection
    kv: Projection  # outputs in the order (heads, key then value, head_dim)
    out: Projection
    dropout: Dropout
    q_norm: RMSNorm | None
    k_norm: RMSNorm | None
    heads: int = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        context_dim: int | None = None,
        *,
        heads: int | None = None,
        head_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        scale: float | None = None,
        qk_norm: bool = False,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        context_dim = dim if context_dim is None else context_dim
        _check.positive(dim=dim, context_dim=context_dim)
        heads = max(1, dim // 64) if heads is None else heads
        _check.positive(heads=heads)
        head_dim = width_of_head(dim, heads, head_dim)
        check_scale(scale)
        keys, inner = RNG(key), heads * head_dim
        self.q = Projection(dim, inner, bias=bias, init=init, key=next(keys))
        self.kv = Projection(context_dim, 2 * inner, bias=bias, init=init, key=next(keys))
        self.out = Projection(inner, dim, bias=bias, init=init, key=next(keys))
        self.dropout = Dropout(dropout)
        self.q_norm, self.k_norm = (RMSNorm(head_dim), RMSNorm(head_dim)) if qk_norm else (None, None)
        self.heads, self.scale = heads, scale

    def __call__(
        self,
        x: Float[Array, "q_seq dim"],
        context: Float[Array, "kv_seq context_dim"] | KeysValues,
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "q_seq dim"]:
        """Attention of every token of x over the context.

        Args:
            x, context: the two sequences; of the second also its `keys_values`, which decoding computes once.
            mask: the pairs that attend: a boolean array that broadcasts to (heads, q_seq, kv_seq), or an expression of
                `eqxgen.ops.masks`. A fully masked token gathers zero.
            bias: added to the logits.
            key: of the dropout; required in training with dropout.
            inference: disables dropout.
        """
        _check.example(x, "q_seq", dim=self.q.in_dim)
        found = context if isinstance(context, KeysValues) else self.keys_values(context)
        active = self.dropout.active(key, inference)
        probs_key, out_key = jr.split(key) if active and key is not None else (None, None)
        q = rearrange(self.q(x), "q_seq (heads head_dim) -> q_seq heads head_dim", heads=self.heads)
        q = q if self.q_norm is None else self.q_norm(q)
        rate = self.dropout.rate if active else 0.0
        y = ops.dot_product_attention(
            q, found.k, found.v, bias, mask, scale=self.scale, dropout_rate=rate, dropout_key=probs_key
        )
        return self.dropout(self.out(join_heads(y)), key=out_key, inference=inference)

    def keys_values(self, context: Float[Array, "kv_seq context_dim"]) -> KeysValues:
        """Keys and values of a context, for several calls with it."""
        _check.example(context, "kv_seq", name="context", context_dim=self.kv.in_dim)
        kv = rearrange(
            self.kv(context), "kv_seq (heads parts head_dim) -> kv_seq heads parts head_dim", heads=self.heads, parts=2
        )
        k, v = (part[:, :, 0] for part in jnp.split(kv, 2, axis=2))
        return KeysValues(k if self.k_norm is None else self.k_norm(k), v)
