"""Attention with a cost linear in the length."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._mesh import varying
from eqxgen.nn.attention.self_attention import join_heads, split_heads
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class LinearAttention(eqx.Module):
    """Self-attention with the kernel phi(q) . phi(k), phi(x) = elu(x) + 1, for the exponential (Katharopoulos et al.
    2020, arXiv:2006.16236).

    Args:
        dim: width of a token, kept.
        heads: number of heads; it divides `dim`.
        causal: token i attends to tokens 0 to i only.
        chunk: tokens per step of a causal call: more work in fewer steps, with the same result.
        bias: adds biases to the projections.
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of width `dim`.
    """

    qkv: Projection  # outputs in the order of `SelfAttention`
    out: Projection
    heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        causal: bool = False,
        chunk: int = 64,
        bias: bool = True,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim, heads=heads, chunk=chunk)
        _check.divides(heads=heads, dim=dim)
        in_key, out_key = jr.split(key)
        self.qkv = Projection(dim, 3 * dim, bias=bias, init=init, key=in_key)
        self.out = Projection(dim, dim, bias=bias, init=init, key=out_key)
        self.heads, self.causal, self.chunk = heads, causal, chunk

    def __call__(self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None) -> Float[Array, "seq dim"]:
        _check.example(x, "seq", dim=self.qkv.in_dim)
        q, k, v = split_heads(self.qkv(x), self.heads, self.out.in_dim // self.heads)
        return self.out(join_heads(linear_attention(q, k, v, causal=self.causal, chunk=self.chunk)))


def linear_attention(
    q: Float[Array, "q_seq heads head_dim"],
    k: Float[Array, "kv_seq heads head_dim"],
    v: Float[Array, "kv_seq heads v_head_dim"],
    *,
    causal: bool = False,
    chunk: int = 64,
) -> Float[Array, "q_seq heads v_head_dim"]:
    """`sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j)` over all j, or j <= i (equations 5 and 9); computed in
    float32, returned in q's dtype.

    Raises:
        ValueError: the two sequences of a causal call differ in length.
    """
    if causal and q.shape[0] != k.shape[0]:
        raise ValueError(f"causal attention needs as many queries as keys: got {q.shape[0]} and {k.shape[0]}")
    phi = lambda x: jax.nn.elu(x.astype(jnp.float32)) + 1
    # One more entry of each value, 1, sums the weights.
    values = jax.lax.pad(v.astype(jnp.float32), jnp.float32(1), ((0, 0, 0), (0, 0, 0), (0, 1, 0)))
    chunk = min(chunk, q.shape[0]) if isinstance(q.shape[0], int) else chunk  # symbolic in jax.export
    sums = _chunked(phi(q), phi(k), values, chunk) if causal else _full(phi(q), phi(k), values)
    return (sums[..., :-1] / sums[..., -1:]).astype(q.dtype)


def _full(q: Array, k: Array, v: Array) -> Array:
    return jnp.einsum("qhd,hdv->qhv", q, jnp.einsum("khd,khv->hdv", k, v))


def _chunked(q: Array, k: Array, v: Array, chunk: int) -> Array:
    """Ordinary attention within a chunk; the sum of phi(k) v^T over all earlier chunks is carried along."""
    seq = q.shape[0]
    count = (seq + chunk - 1) // chunk  # in this form also for a symbolic length
    padding = [(0, count * chunk - seq), (0, 0), (0, 0)]
    chunks = [jnp.pad(x, padding).reshape(count, chunk, *x.shape[1:]) for x in (q, k, v)]
    earlier = jnp.tril(jnp.ones((chunk, chunk), bool))

    def step(state: Array, parts: list[Array]):
        q, k, v = parts
        weights = jnp.where(earlier, jnp.einsum("qhd,khd->hqk", q, k), 0.0)
        y = jnp.einsum("hqk,khv->qhv", weights, v) + jnp.einsum("qhd,hdv->qhv", q, state)
        return state + jnp.einsum("khd,khv->hdv", k, v), y

    state = varying(jnp.zeros((q.shape[1], q.shape[2], v.shape[2])), q, k, v)
    y = jax.lax.scan(step, state, chunks)[1]
    return rearrange(y, "n c h d -> (n c) h d")[:seq]
