"""Transformer blocks, and a stack of them under one compiled body."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.nn import _check
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.linear import Initializer, torch_uniform
from eqxgen.nn.mlp import MLP
from eqxgen.nn.norm import LayerNorm


class TransformerBlock(eqx.Module):
    """Self-attention and an MLP, each with a norm and a residual addition.

    Args:
        dim: width of a token, kept.
        heads: number of attention heads.
        hidden_dim: inner width of the MLP; 4 * dim by default.
        placement: "pre": `x + f(norm(x))` (GPT-2); "post": `norm(x + f(x))` (Vaswani et al. 2017; BERT).
        activation: the MLP's.
        dropout: rate on attention probabilities and on the output of both halves.
        causal: whether the attention is.
        epsilon: the norms'.
        init: how the weights are drawn.
    """

    attention: SelfAttention
    mlp: MLP
    attention_norm: LayerNorm
    mlp_norm: LayerNorm
    placement: str = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        hidden_dim: int | None = None,
        placement: Literal["pre", "post"] = "pre",
        activation: str = "gelu",
        dropout: float = 0.0,
        causal: bool = False,
        epsilon: float = 1e-5,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.one_of("placement", placement, ("pre", "post"))
        attention_key, mlp_key = jr.split(key)
        self.attention = SelfAttention(dim, heads, dropout=dropout, causal=causal, init=init, key=attention_key)
        self.mlp = MLP(dim, hidden_dim, activation=activation, dropout=dropout, init=init, key=mlp_key)
        self.attention_norm = LayerNorm(dim, epsilon=epsilon)
        self.mlp_norm = LayerNorm(dim, epsilon=epsilon)
        self.placement = placement

    def __call__(
        self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "seq dim"]:
        attention_key, mlp_key = (None, None) if key is None else jr.split(key)
        if self.placement == "pre":
            x = x + self.attention(self.attention_norm(x), key=attention_key, inference=inference)
            return x + self.mlp(self.mlp_norm(x), key=mlp_key, inference=inference)
        x = self.attention_norm(x + self.attention(x, key=attention_key, inference=inference))
        return self.mlp_norm(x + self.mlp(x, key=mlp_key, inference=inference))


class Stack(eqx.Module):
    """`depth` like blocks, one after another, compiled once whatever the depth.

    The parameters of all blocks lie stacked along a leading axis and `jax.lax.scan` runs over it.

    Args:
        block: makes one block from a key.
        depth: how many.
        remat: whether the backward pass computes each block's inside again, rather than keep it: memory for time.
    """

    blocks: eqx.Module
    fetch: Callable[[PyTree], PyTree] | None
    depth: int = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(self, block: Callable[[PRNGKeyArray], eqx.Module], depth: int, *, remat: bool = False, key: PRNGKeyArray):
        _check.positive(depth=depth)
        self.blocks = eqx.filter_vmap(block)(jr.split(key, depth))
        self.depth, self.remat, self.fetch = depth, remat, None

    def fetching(self, fetch: Callable[[PyTree], PyTree]) -> "Stack":
        """The same stack, which calls `fetch` on the arrays of each block just before the block runs, in both passes.

        For parameters that lie in parts on several devices, or elsewhere. The backward pass keeps the results of matrix products and
        fetches the parameters again, rather than keep those of all blocks.
        """
        return eqx.tree_at(lambda stack: stack.fetch, self, fetch, is_leaf=lambda x: x is None)

    def __call__(
        self, x: Float[Array, "seq dim"], *context: Array, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "seq dim"]:
        """Every block is given the same `context` behind x."""
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        keys = None if key is None else jr.split(key, self.depth)

        def step(x: Array, layer):
            block, key = layer
            block = block if self.fetch is None else self.fetch(block)
            return eqx.combine(block, rest)(x, *context, key=key, inference=inference), None

        if self.remat:
            step = jax.checkpoint(step, prevent_cse=False)  # scan already keeps the two passes apart
        elif self.fetch is not None:
            step = jax.checkpoint(step, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
        return jax.lax.scan(step, x, (arrays, keys))[0]
