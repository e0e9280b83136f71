"""GPT: a causal transformer over tokens (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Pre-norm blocks between an embedding and a head that share one table, learned positions, a last norm. Weights are drawn
from a normal of deviation 0.02, and those that end a residual branch from one of 0.02 / sqrt(2 depth) (section 2.3);
biases start at zero.

Other configs give nanoGPT's model (no biases, exact GELU), LLaMA's (RMSNorm, SwiGLU, rotary positions, grouped queries,
an untied head), one with DeepSeek's latent attention and one with experts for MLPs; see `eqxgen.configs.GPTConfig`. The
loss is `eqxgen.losses.tokens.next_token_losses`, or `routed_losses` with experts; the samplers are
`eqxgen.decoding.autoregressive` and `eqxgen.decoding.beam`;
`eqxgen.pretrained.gpt2` reads and writes published weights.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from eqxgen.configs import GPTConfig
from eqxgen.nn import (
    GLU,
    MLP,
    Dropout,
    Embedding,
    LatentAttention,
    LayerNorm,
    MoE,
    Projection,
    RMSNorm,
    RoPE,
    RoPEScaling,
    Routing,
    SelfAttention,
    Stack,
    TransformerBlock,
    _check,
    _split,
)
from eqxgen.nn.linear import check_ids, times_rows

_normal = jax.nn.initializers.normal(0.02)


class Caches(eqx.Module):
    """Memory of the tokens so far: caches of the blocks, and the number of tokens."""

    blocks: PyTree
    count: Int[Array, ""]


class GPT(eqx.Module):
    """Logits of the token that follows each token of one sequence.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    embedding: Embedding
    positions: Float[Array, "context dim"] | None
    dropout: Dropout
    stack: Any  # a Stack, or for decoding an Unrolled
    norm: LayerNorm | RMSNorm
    head: Projection | None
    context: int = eqx.field(static=True)

    def __init__(self, vocab: int, config: GPTConfig, *, key: PRNGKeyArray):
        _check.positive(vocab=vocab)
        embed_key, position_key, stack_key, head_key = jr.split(key, 4)
        self.embedding = Embedding(vocab, config.dim, init=_normal, key=embed_key)
        self.positions = (
            _normal(position_key, (config.context, config.dim), jnp.float32) if config.positions == "learned" else None
        )
        self.dropout = Dropout(config.dropout if config.embedding_dropout is None else config.embedding_dropout)
        stack = Stack(functools.partial(_block, config), config.depth, remat=config.remat, key=stack_key)
        mlp = lambda stack: stack.blocks.mlp.experts if config.experts else stack.blocks.mlp
        ends = lambda stack: (stack.blocks.attention.out.weight, mlp(stack).down.weight)
        self.stack = eqx.tree_at(ends, stack, [weight / math.sqrt(2 * config.depth) for weight in ends(stack)])
        self.norm = _norm(config)
        self.head = None if config.tied else Projection(config.dim, vocab, bias=False, init=_normal, key=head_key)
        self.context = config.context

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.vocab

    def __call__(
        self, ids: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "seq vocab"]:
        """Logits, in float32 at least.

        Args:
            ids: tokens in [0, vocab), at most `context` of them: an array (seq,) of integers, or a list.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: there are more tokens than `context`, the ids are no sequence of integers, or one is out of
                range (inside a compiled program it gives NaN instead).
        """
        return self._logits(self.hidden(ids, key=key, inference=inference))

    def hidden(
        self, ids: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "seq dim"]:
        """Input of the output projection; the arguments are those of a call."""
        x, key = self._embedded(ids, key, inference)
        return self.norm(self.stack(x, key=key, inference=inference))

    def routed(
        self, ids: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Float[Array, "seq dim"], Routing]:
        """As `hidden`, and the routing of every block, stacked; of a model with experts.

        Raises:
            ValueError: the model has none.
        """
        x, key = self._embedded(ids, key, inference)
        x, routing = self.stack.routed(x, key=key, inference=inference)
        return self.norm(x), routing

    def _embedded(
        self, ids: _check.Ids, key: PRNGKeyArray | None, inference: bool | None
    ) -> tuple[Float[Array, "seq dim"], PRNGKeyArray | None]:
        """Input of the stack, and its key."""
        ids = check_ids(ids, self.vocab, "ids", "vocab")
        _check.example(ids, "seq", name="ids")
        seq = ids.shape[0] * _split.devices()
        if seq > self.context:
            raise ValueError(f"ids must be at most context={self.context} tokens: got {seq}")
        embed_key, stack_key = (None, None) if key is None else jr.split(key)
        x = self.embedding(ids)
        if self.positions is not None:
            x = x + _split.own_tokens(self.positions[:seq]).astype(x.dtype)
        return self.dropout(x, key=embed_key, inference=inference), stack_key

    def cache(self, dtype: DTypeLike = jnp.float32) -> Caches:
        """The empty memory, with room for `context` tokens."""
        return Caches(self.stack.cache(self.context, dtype), jnp.zeros((), jnp.int32))

    def extend(
        self, ids: _check.Ids, cache: Caches, *, count: int | Int[Array, ""] | None = None
    ) -> tuple[Float[Array, " vocab"], Caches]:
        """Logits of the next token, and the memory with the new tokens added; without dropout.

        Args:
            ids: the tokens after those of the cache.
            cache: from `cache` or the call before.
            count: number of tokens among `ids`, before padding; all by default. With 0 the logits are undefined.

        Raises:
            ValueError: the memory has no room for the tokens; under jit the logits are NaN instead.
        """
        ids = check_ids(ids, self.vocab, "ids", "vocab")
        _check.example(ids, "new", name="ids")
        count = jnp.asarray(len(ids) if count is None else count, jnp.int32)
        x = self.embedding(ids)
        if self.positions is not None:
            places = cache.count + jnp.arange(len(ids))
            x = x + self.positions.at[places].get(mode="fill", fill_value=jnp.nan).astype(x.dtype)
        x, blocks = self.stack.extend(x, cache.blocks, count=count)
        last = jax.lax.dynamic_slice_in_dim(x, jnp.maximum(count - 1, 0), 1)
        return self._logits(self.norm(last))[0], Caches(blocks, cache.count + count)

    def unrolled(self) -> "GPT":
        """The model for decoding, see `Stack.unrolled`; it cannot be trained."""
        return eqx.tree_at(lambda model: model.stack, self, self.stack.unrolled())

    @property
    def unembedding(self) -> tuple[Float[Array, "vocab dim"], None]:
        """Weight of the output projection, which has no bias."""
        return self.embedding.weight if self.head is None else self.head.weight, None

    def _logits(self, x: Float[Array, "seq dim"]) -> Float[Array, "seq vocab"]:
        return times_rows(x, self.unembedding[0], wide=True)


def _norm(config: GPTConfig) -> LayerNorm | RMSNorm:
    return (
        RMSNorm(config.dim, epsilon=config.epsilon)
        if config.norm == "rms"
        else LayerNorm(config.dim, epsilon=config.epsilon, bias=config.bias)
    )


def _block(config: GPTConfig, key: PRNGKeyArray) -> TransformerBlock:
    attention_key, mlp_key = jr.split(key)
    options = {"bias": config.bias, "dropout": config.dropout, "init": _normal}
    gated = config.mlp == "swiglu"
    mlp = GLU if gated else MLP
    if config.experts:
        mlp = functools.partial(
            MoE,
            experts=config.experts,
            top_k=config.experts_top_k,
            capacity_factor=config.capacity_factor,
            gated=gated,
            jitter=config.router_jitter,
        )
    return TransformerBlock(
        _attention(config, options, attention_key),
        mlp(config.dim, config.hidden_dim, activation="swish" if gated else config.mlp, **options, key=mlp_key),
        attention_norm=_norm(config),
        mlp_norm=_norm(config),
    )


def _attention(config: GPTConfig, options: dict, key: PRNGKeyArray) -> SelfAttention | LatentAttention:
    head_dim = config.width_of_head
    if not config.latent:
        options = {"causal": True, "rope": _rope(config), "probs_dropout": config.attention_dropout, **options}
        options["head_dim"] = config.head_dim
        options["bias"] = config.bias if config.attention_bias is None else config.attention_bias
        return SelfAttention(config.dim, config.heads, kv_heads=config.kv_heads, **options, key=key)
    turned = head_dim // 4 * 2  # half of each query and key is for the position, the other half for the content
    sizes: dict[str, Any] = {
        "kv_lora_rank": config.latent,
        "qk_nope_head_dim": head_dim - turned,
        "qk_rope_head_dim": turned,
        "v_head_dim": head_dim,
    }
    sizes["base"] = config.rope_base
    return LatentAttention(config.dim, config.heads, **sizes, bias=config.bias, init=_normal, key=key)


def _rope(config: GPTConfig) -> RoPE | None:
    if config.positions != "rotary":
        return None
    scaling = None
    if config.rope_factor != 1:
        scaling = RoPEScaling(config.rope_factor, config.rope_original, config.rope_low, config.rope_high)
    return RoPE(config.width_of_head, base=config.rope_base, scaling=scaling)
