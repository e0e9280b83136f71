"""Decoder blocks with attention to an encoder."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._call import given, run
from eqxgen.nn.attention.cross import CrossAttention, KeysValues
from eqxgen.nn.attention.self_attention import Bias, Mask, SelfAttention
from eqxgen.nn.linear import Initializer, torch_uniform
from eqxgen.nn.norm.fused import LayerNorm
from eqxgen.nn.transformer.blocks import Layer, TransformerBlock, caching
from eqxgen.nn.transformer.mlp import MLP


class DecoderBlock(eqx.Module):
    """A decoder block of a given self-attention, cross-attention and MLP, each with a norm and a residual addition
    (Vaswani et al. 2017, section 3.1; with norms before, T5: Raffel et al. 2020, arXiv:1910.10683).

    A block without self-attention, as in Perceiver, is `TransformerBlock(cross, mlp, ...)`.

    Args:
        attention: `(seq, dim) -> (seq, dim)`.
        cross: `(seq, dim), context -> (seq, dim)`.
        mlp: `(seq, dim) -> (seq, dim)`.
        attention_norm, cross_norm, mlp_norm: norms of the three branches.
        placement: "pre", `x + f(n(x))`, or "post", `n(x + f(x))`.
        drop_path: rate at which a branch is dropped in training, see `DropPath`.
    """

    attention: Layer
    attention_norm: Layer
    rest: TransformerBlock

    def __init__(
        self,
        attention: Layer,
        cross: Layer,
        mlp: Layer,
        *,
        attention_norm: Layer,
        cross_norm: Layer,
        mlp_norm: Layer,
        placement: str = "pre",
        drop_path: float = 0.0,
    ):
        _check.one_of("placement", placement, ("pre", "post"))
        self.attention, self.attention_norm = attention, attention_norm
        self.rest = TransformerBlock(
            cross, mlp, attention_norm=cross_norm, mlp_norm=mlp_norm, placement=placement, drop_path=drop_path
        )

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        context: Array | KeysValues,
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        context_mask: Mask | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """`mask` and `bias` are passed on to the self-attention, `context_mask` to the cross-attention."""
        attention_key, drop_key, key = (None,) * 3 if key is None else jr.split(key, 3)
        attend = functools.partial(self.attention, **given(mask=mask, bias=bias))
        first = lambda x: (run(attend, x, key=attention_key, inference=inference), None)
        x, _ = self._first(x, first, drop_key, inference)
        return self.rest(x, context, mask=context_mask, key=key, inference=inference)

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> Any:
        """An empty cache of the self-attention for `length` tokens."""
        return caching(self.attention).cache(length, dtype)

    def extend(
        self,
        x: Float[Array, "seq dim"],
        cache: Any,
        context: Array | KeysValues,
        *,
        count: int | Int[Array, ""] | None = None,
        bias: Bias | None = None,
        context_mask: Mask | None = None,
    ) -> tuple[Float[Array, "seq dim"], Any]:
        """As `TransformerBlock.extend`. Keys and values of the context are computed again at each call, unless the
        block is `bound` to it.
        """
        attention, options = caching(self.attention), given(bias=bias)
        x, cache = self._first(x, lambda x: attention.extend(x, cache, count=count, **options), None, True)
        return self.rest(x, context, mask=context_mask, inference=True), cache

    def bound(self, context: Array, *, context_mask: Mask | None = None) -> "Bound":
        """The block with this context, whose keys and values are computed once, for decoding."""
        cross: Any = self.rest.attention
        return Bound(self, cross.keys_values(context), context_mask)

    def _first(
        self, x: Array, attend: Callable[..., tuple[Array, Any]], key: PRNGKeyArray | None, inference: bool | None
    ):
        if x.ndim != 2:
            _check.example(x, "seq", "dim")
        pre = self.rest.placement == "pre"
        y, cache = attend(self.attention_norm(x) if pre else x)
        x = x + self.rest.drop_path(y, key=key, inference=inference)
        return x if pre else self.attention_norm(x), cache


class Bound(eqx.Module):
    """A `DecoderBlock` with its context: it decodes as a block of self-attention does."""

    block: DecoderBlock
    context: KeysValues
    context_mask: Any

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> Any:
        """As `DecoderBlock.cache`."""
        return self.block.cache(length, dtype)

    def extend(
        self,
        x: Float[Array, "seq dim"],
        cache: Any,
        *,
        count: int | Int[Array, ""] | None = None,
        bias: Bias | None = None,
    ) -> tuple[Float[Array, "seq dim"], Any]:
        """As `DecoderBlock.extend`, with the bound context."""
        return self.block.extend(x, cache, self.context, count=count, bias=bias, context_mask=self.context_mask)


def Crossformer(
    dim: int,
    context_dim: int | None = None,
    heads: int | None = None,
    *,
    hidden_dim: int | None = None,
    placement: str = "pre",
    activation: str = "gelu",
    dropout: float = 0.0,
    causal: bool = True,
    epsilon: float = 1e-5,
    init: Initializer = torch_uniform,
    key: PRNGKeyArray,
) -> DecoderBlock:
    """A `DecoderBlock` of causal self-attention, cross-attention, an MLP of two projections, and layer norms.

    Args:
        dim: width of a token, kept.
        context_dim: width of the context's tokens; `dim` by default.
        heads: number of heads of both attentions; by default dim // 64, at least 1.
        hidden_dim: inner width of the MLP; 4 * dim by default.
        placement: "pre" or "post", see `DecoderBlock`.
        activation: of the MLP, by name.
        dropout: rate on attention probabilities and on the output of the three branches.
        causal: token i attends to tokens 0 to i only, in the self-attention.
        epsilon: of the norms.
        init: initializer of the weights.
    """
    _check.positive(dim=dim)
    heads = max(1, dim // 64) if heads is None else heads
    attention_key, cross_key, mlp_key = jr.split(key, 3)
    norm = functools.partial(LayerNorm, dim, epsilon=epsilon)
    return DecoderBlock(
        SelfAttention(dim, heads, dropout=dropout, causal=causal, init=init, key=attention_key),
        CrossAttention(dim, context_dim, heads=heads, dropout=dropout, init=init, key=cross_key),
        MLP(dim, hidden_dim, activation=activation, dropout=dropout, init=init, key=mlp_key),
        attention_norm=norm(),
        cross_norm=norm(),
        mlp_norm=norm(),
        placement=placement,
    )
