"""Attention pooling: one vector of a sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.attention.self_attention import SelfAttention, join_heads
from eqxgen.nn.linear import Initializer, times_rows, torch_uniform
from eqxgen.nn.norm.fused import LayerNorm
from eqxgen.nn.transformer.mlp import MLP


class AttentionPool(eqx.Module):
    """A learned query that attends to the tokens of a sequence, then an MLP: `y = attention(probe, x, x)`,
    `y + mlp(norm(y))` (Zhai et al. 2022, arXiv:2106.04560, section 3.4; SigLIP).

    Args:
        dim: width of a token, kept.
        heads: number of attention heads; it divides `dim`.
        hidden_dim: inner width of the MLP; 4 * dim by default.
        activation: of the MLP, by name.
        epsilon: of the norm.
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence.
    """

    probe: Float[Array, "1 dim"]
    attention: SelfAttention  # projections alone: the queries are the probe's
    norm: LayerNorm
    mlp: MLP

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        epsilon: float = 1e-6,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        probe_key, attention_key, mlp_key = jr.split(key, 3)
        self.attention = SelfAttention(dim, heads, init=init, key=attention_key)
        self.probe = jax.nn.initializers.normal(1.0)(probe_key, (1, dim), jnp.float32)
        self.norm = LayerNorm(dim, epsilon=epsilon)
        self.mlp = MLP(dim, hidden_dim, activation=activation, init=init, key=mlp_key)

    def __call__(self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None) -> Float[Array, " dim"]:
        _check.example(x, "seq", dim=self.attention.qkv.in_dim)
        q, kv = self._part(self.probe.astype(x.dtype), 0, 1), self._part(x, 1, 3)
        y = ops.dot_product_attention(q[:, :, 0], kv[:, :, 0], kv[:, :, 1])
        y = self.attention.out(join_heads(y))
        return (y + self.mlp(self.norm(y)))[0]

    def _part(self, x: Array, start: int, stop: int) -> Array:
        """Some of queries, keys and values: (seq, heads, parts, head_dim)."""
        heads, layer = self.attention.heads, self.attention.qkv
        cut = lambda a: rearrange(a, "(heads parts d) ... -> heads parts d ...", heads=heads, parts=3)[:, start:stop]
        weight, bias = (
            rearrange(cut(a), "heads parts d ... -> (heads parts d) ...") for a in (layer.weight, layer.bias)
        )
        y = times_rows(x, weight) + bias.astype(x.dtype)[None]
        return rearrange(y, "seq (heads parts d) -> seq heads parts d", heads=heads, parts=stop - start)
