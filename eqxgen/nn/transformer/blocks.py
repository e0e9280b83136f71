"""Transformer blocks: attention and an MLP, each with its norms and a residual addition."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._call import given, run
from eqxgen.nn.attention.cross import KeysValues
from eqxgen.nn.attention.self_attention import Bias, Mask, SelfAttention
from eqxgen.nn.drop import DropPath
from eqxgen.nn.embed.rope import AxialRoPE, RoPE
from eqxgen.nn.linear import Initializer, torch_uniform
from eqxgen.nn.norm.fused import LayerNorm
from eqxgen.nn.transformer.condition import AdaLNZero
from eqxgen.nn.transformer.mlp import GLU, MLP
from eqxgen.nn.transformer.moe import Routed, Routing

PLACEMENTS = ("pre", "post", "sandwich", "parallel")
Layer = Callable[..., Any]


class TransformerBlock(eqx.Module):
    """A transformer block of a given attention and MLP. Each of the two branches f has a norm n, and in a sandwich
    block an output norm o:

        pre        x + f(n(x)), attention, then MLP
                   GPT-2 (Radford et al. 2019), LLaMA
        post       n(x + f(x)), attention, then MLP
                   Vaswani et al. 2017, section 3.1; BERT
        sandwich   x + o(f(n(x))), attention, then MLP
                   CogView (Ding et al. 2021, arXiv:2105.13290), section 2.3; Gemma 2
        parallel   x + attention(n(x)) + mlp(n(x))
                   GPT-J (Wang 2021); ViT-22B (Dehghani et al. 2023, arXiv:2302.05442), equation 1

    Any layers that keep `(seq, dim)` can be used: a LLaMA block has RMSNorm, a gated MLP and an attention with grouped
    heads and rotary positions; a block with a cross-attention is called as `block(x, context)`.

    Args:
        attention: `(seq, dim) -> (seq, dim)`; the context of the call is passed on to it.
        mlp: `(seq, dim) -> (seq, dim)`, or an `MoE`, see `routed`.
        attention_norm, mlp_norm: norms of the two branches. A parallel block without `mlp_norm` has one norm for both,
            as in its sources; with it, each branch has its own, as in GPT-NeoX.
        attention_out_norm, mlp_out_norm: norms after the branches; for sandwich blocks only.
        placement: one of the four above.
        drop_path: rate at which a branch is dropped in training, see `DropPath`.

    Raises:
        ValueError: the placement is unknown; a norm that it needs is missing, or one that it does not have is given; x
            is not one sequence.
    """

    attention: Layer
    mlp: Layer
    attention_norm: Layer
    mlp_norm: Layer | None
    attention_out_norm: Layer | None
    mlp_out_norm: Layer | None
    drop_path: DropPath
    placement: str = eqx.field(static=True)

    def __init__(
        self,
        attention: Layer,
        mlp: Layer,
        *,
        attention_norm: Layer,
        mlp_norm: Layer | None = None,
        attention_out_norm: Layer | None = None,
        mlp_out_norm: Layer | None = None,
        placement: str = "pre",
        drop_path: float = 0.0,
    ):
        _check.one_of("placement", placement, PLACEMENTS)
        if mlp_norm is None and placement != "parallel":
            raise ValueError(f"placement={placement!r} needs mlp_norm: only a parallel block shares one norm")
        for name, norm in ("attention_out_norm", attention_out_norm), ("mlp_out_norm", mlp_out_norm):
            if (norm is None) == (placement == "sandwich"):
                raise ValueError(
                    f"{name} is required by placement='sandwich' and by no other: got {name}={norm}, "
                    f"placement={placement!r}"
                )
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = attention_norm, mlp_norm
        self.attention_out_norm, self.mlp_out_norm = attention_out_norm, mlp_out_norm
        self.drop_path, self.placement = DropPath(drop_path), placement

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *context: Array | KeysValues,
        mask: Mask | None = None,
        bias: Bias | None = None,
        positions: Int[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """`context` is passed on to the attention, and so are `mask`, `bias` and `positions` where they are given."""
        attention = functools.partial(self.attention, **given(mask=mask, bias=bias, positions=positions))
        return self._branches(
            x, lambda x, key: (run(attention, x, *context, key=key, inference=inference), None), key, inference
        )[0]

    def routed(
        self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Float[Array, "seq dim"], Routing]:
        """The result of a block whose `mlp` is an `MoE`, and its routing; a call leaves the routing out."""
        found: list[Routing] = []
        attend = lambda x, key: (run(self.attention, x, key=key, inference=inference), None)
        x, _ = self._branches(x, attend, key, inference, found.append)
        if not found:
            raise ValueError(f"routed needs a block whose mlp is an MoE: got {type(self.mlp).__name__}; call the block")
        return x, found[0]

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> Any:
        """An empty cache of the attention for `length` tokens."""
        return caching(self.attention).cache(length, dtype)

    def extend(
        self,
        x: Float[Array, "seq dim"],
        cache: Any,
        *,
        count: int | Int[Array, ""] | None = None,
        bias: Bias | None = None,
    ) -> tuple[Float[Array, "seq dim"], Any]:
        """The results of the tokens after those in the cache, and the cache with them; without dropout.

        Args:
            x: the next tokens.
            cache: from `cache` or the previous call.
            count: number of real tokens, the rest of x being padding. By default all.
            bias: passed on to the attention where it is given.
        """
        attention, options = caching(self.attention), given(bias=bias)
        return self._branches(x, lambda x, key: attention.extend(x, cache, count=count, **options), None, True)

    def _branches(
        self,
        x: Array,
        attend: Callable[..., tuple[Array, Any]],
        key: PRNGKeyArray | None,
        inference: bool | None,
        routing: Callable[[Routing], None] = lambda _: None,
    ):
        if x.ndim != 2:
            _check.example(x, "seq", "dim")
        attention_key, mlp_key, *drop_keys = (None,) * 4 if key is None else jr.split(key, 4)

        def mlp(x: Array) -> Array:
            y = run(self.mlp, x, key=mlp_key, inference=inference)
            if not isinstance(y, Routed):
                return y
            routing(y.routing)
            return y.x

        drop, drop_mlp = (functools.partial(self.drop_path, key=key, inference=inference) for key in drop_keys)
        norm, mlp_norm = self.attention_norm, self.attention_norm if self.mlp_norm is None else self.mlp_norm
        out, mlp_out = self.attention_out_norm, self.mlp_out_norm
        if self.placement == "post":
            y, cache = attend(x, attention_key)
            x = norm(x + drop(y))
            return mlp_norm(x + drop_mlp(mlp(x))), cache
        normed = norm(x)
        y, cache = attend(normed, attention_key)
        if self.placement == "parallel":
            return x + drop(y) + drop_mlp(mlp(normed if self.mlp_norm is None else mlp_norm(x))), cache
        x = x + drop(y if out is None else out(y))
        y = mlp(mlp_norm(x))
        return x + drop_mlp(y if mlp_out is None else mlp_out(y)), cache


def Selformer(
    dim: int,
    heads: int,
    *,
    hidden_dim: int | None = None,
    placement: str = "pre",
    activation: str = "gelu",
    dropout: float = 0.0,
    causal: bool = False,
    epsilon: float = 1e-5,
    init: Initializer = torch_uniform,
    key: PRNGKeyArray,
) -> TransformerBlock:
    """A `TransformerBlock` of self-attention, an MLP of two projections, and layer norms.

    Args:
        dim: width of a token, kept.
        heads: number of attention heads.
        hidden_dim: inner width of the MLP; 4 * dim by default.
        placement: of the norms, see `TransformerBlock`.
        activation: of the MLP, by name.
        dropout: rate on attention probabilities and on the output of both branches.
        causal: token i attends to tokens 0 to i only.
        epsilon: of the norms.
        init: initializer of the weights.
    """
    attention_key, mlp_key = jr.split(key)
    norm = functools.partial(LayerNorm, dim, epsilon=epsilon)
    return TransformerBlock(
        SelfAttention(dim, heads, dropout=dropout, causal=causal, init=init, key=attention_key),
        MLP(dim, hidden_dim, activation=activation, dropout=dropout, init=init, key=mlp_key),
        attention_norm=norm(),
        mlp_norm=None if placement == "parallel" else norm(),
        attention_out_norm=norm() if placement == "sandwich" else None,
        mlp_out_norm=norm() if placement == "sandwich" else None,
        placement=placement,
    )


class Timeformer(eqx.Module):
    """A block conditioned on a vector, such as a diffusion time: the adaLN-Zero block of DiT.

    `x + gate * f(norm(x) * (1 + scale) + shift)` for self-attention, then for an MLP. Shift, scale and gate are
    computed from the condition and are zero at initialisation, so that a new block is the identity (Peebles and Xie
    2023, arXiv:2212.09748, section 3.2).

    Args:
        dim: width of a token, kept.
        heads: number of attention heads.
        condition_dim: size of the condition; `dim` by default.
        hidden_dim: inner width of the MLP; 4 * dim by default.
        activation: of the MLP, by name.
        dropout: rate on attention probabilities and on the output of both branches.
        epsilon: of the norms.
        mlp_epsilon: another epsilon of the MLP's norm.
        gated: a SwiGLU with biases in place of the MLP.
        rms: RMS norms in place of layer norms, see `AdaLN`.
        qk_norm, rope: see `SelfAttention`.
        init: initializer of the weights of attention and MLP.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence, or the condition not one vector.
    """

    attention: SelfAttention
    mlp: MLP | GLU
    attention_norm: AdaLNZero
    mlp_norm: AdaLNZero

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        condition_dim: int | None = None,
        hidden_dim: int | None = None,
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        epsilon: float = 1e-6,
        mlp_epsilon: float | None = None,
        gated: bool = False,
        rms: bool = False,
        qk_norm: bool = False,
        rope: RoPE | AxialRoPE | None = None,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        attention_key, mlp_key, key = jr.split(key, 3)
        self.attention = SelfAttention(
            dim, heads, dropout=dropout, qk_norm=qk_norm, rope=rope, init=init, key=attention_key
        )
        self.mlp = (
            GLU(dim, hidden_dim, dropout=dropout, bias=True, init=init, key=mlp_key)
            if gated
            else MLP(dim, hidden_dim, activation=activation, dropout=dropout, init=init, key=mlp_key)
        )
        epsilons = (epsilon, epsilon if mlp_epsilon is None else mlp_epsilon)
        self.attention_norm, self.mlp_norm = (
            AdaLNZero(dim, condition_dim, epsilon=epsilon, rms=rms, key=key)
            for epsilon, key in zip(epsilons, jr.split(key))
        )

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        condition: Float[Array, " condition_dim"],
        *,
        mask: Mask | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """`mask` is passed on to the attention."""
        _check.example(x, "seq", dim=self.attention_norm.dim)
        attention_key, mlp_key = (None, None) if key is None else jr.split(key)
        y, gate = self.attention_norm(x, condition)
        x = x + gate * self.attention(y, mask=mask, key=attention_key, inference=inference)
        y, gate = self.mlp_norm(x, condition)
        return x + gate * self.mlp(y, key=mlp_key, inference=inference)

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> Any:
        """An empty cache of the attention for `length` tokens."""
        return self.attention.cache(length, dtype)

    def extend(
        self,
        x: Float[Array, "seq dim"],
        cache: Any,
        condition: Float[Array, " condition_dim"],
        *,
        count: int | Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "seq dim"], Any]:
        """The results of a block of tokens that see one another and those in the cache, and the cache with them;
        without dropout. Calls on the whole sequence have a mask that is causal by blocks.
        """
        y, gate = self.attention_norm(x, condition)
        y, cache = self.attention.extend(y, cache, count=count, together=True)
        x = x + gate * y
        y, gate = self.mlp_norm(x, condition)
        return x + gate * self.mlp(y, inference=True), cache


def caching(attention: Any) -> Any:
    """The attention, which must have the methods of step-by-step decoding."""
    if not (hasattr(attention, "cache") and hasattr(attention, "extend")):
        raise ValueError(
            "attention must have the methods cache and extend for decoding step by step: got "
            f"{type(attention).__name__}"
        )
    return attention
