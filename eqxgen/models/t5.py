"""T5: an encoder and a decoder of text (Raffel et al. 2020, arXiv:1910.10683), versions 1.0 and 1.1.

Pre-norm blocks with RMS norms, without biases of projections. Attention has no scale: queries start smaller by
1 / sqrt(head_dim) instead. Positions are a learned bias of the logits by head and distance, shared by the blocks of
each half. Difference to the published training code: no dropout inside the MLPs, only after them.

Decoding begins with the padding token, 0:

    written = model.conditioned(source)
    ids = generate(written, [[0]], 20, Sampling(temperature=0.0), stop=[1], key=key)
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from eqxgen.configs import T5Config
from eqxgen.nn import (
    GLU,
    MLP,
    CrossAttention,
    DecoderBlock,
    Dropout,
    Embedding,
    Projection,
    RMSNorm,
    SelfAttention,
    Stack,
    T5Bias,
    TransformerBlock,
    _check,
)
from eqxgen.nn.linear import check_ids, times_rows

_fan_in = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)


class T5Half(eqx.Module):
    """The encoder's blocks or the decoder's, with their bias and last norm.

    Args:
        cross: blocks with attention to a context, as the decoder's; by default those of a causal half.
        biased: a bias of the logits by distance.
    """

    bias: Any  # a T5Bias, or None
    stack: Any  # a Stack, or for decoding an Unrolled
    norm: RMSNorm
    dropout: Dropout

    def __init__(
        self, config: T5Config, *, causal: bool, cross: bool | None = None, biased: bool = True, key: PRNGKeyArray
    ):
        bias_key, stack_key = jr.split(key)
        sizes = {"buckets": config.buckets, "max_distance": config.max_distance, "causal": causal}
        init = jax.nn.initializers.normal(config.dim**-0.5)
        self.bias = T5Bias(config.heads, **sizes, init=init, key=bias_key) if biased else None
        cross = causal if cross is None else cross
        depth = (config.decoder_depth or config.depth) if cross else config.depth
        block = functools.partial(_decoder_block, config, causal) if cross else functools.partial(_block, config)
        self.stack = Stack(block, depth, remat=config.remat, key=stack_key)
        self.norm, self.dropout = RMSNorm(config.dim, epsilon=config.epsilon), Dropout(config.dropout)

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *context: Array,
        key: PRNGKeyArray | None,
        inference: bool | None,
        **masks: Any,
    ) -> Float[Array, "seq dim"]:
        first_key, stack_key, last_key = (None,) * 3 if key is None else jr.split(key, 3)
        x = self.dropout(x, key=first_key, inference=inference)
        if self.bias is not None:
            masks["bias"] = self.bias(jnp.arange(x.shape[0])).astype(x.dtype)
        x = self.stack(x, *context, key=stack_key, inference=inference, **masks)
        return self.dropout(self.norm(x), key=last_key, inference=inference)


class T5Encoder(eqx.Module):
    """The embedding and the encoder alone, as text encoders of image models are.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    embedding: Embedding
    encoder: T5Half

    def __init__(self, vocab: int, config: T5Config, *, key: PRNGKeyArray):
        _check.positive(vocab=vocab)
        embed_key, key = jr.split(key)
        self.embedding = Embedding(vocab, config.dim, key=embed_key)
        self.encoder = T5Half(config, causal=False, key=key)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.vocab

    def __call__(
        self,
        ids: _check.Ids,
        *,
        mask: Bool[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """States of the tokens.

        Args:
            ids: tokens in [0, vocab), any number.
            mask: true for the real tokens, false for padding; all are real by default.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: the mask has another length, or an id is out of range (inside a compiled program it gives NaN
                instead).
        """
        return _encoded(self.embedding, self.encoder, ids, mask, key, inference)


class T5(eqx.Module):
    """Logits of the token that follows each token of a target, given a source.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    embedding: Embedding
    encoder: T5Half
    decoder: T5Half
    head: Projection | None
    head_scale: float = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(self, vocab: int, config: T5Config, *, key: PRNGKeyArray):
        _check.positive(vocab=vocab)
        embed_key, encoder_key, decoder_key, head_key = jr.split(key, 4)
        self.embedding = Embedding(vocab, config.dim, key=embed_key)
        self.encoder = T5Half(config, causal=False, key=encoder_key)
        self.decoder = T5Half(config, causal=True, key=decoder_key)
        self.head = None if config.tied else Projection(config.dim, vocab, bias=False, init=_fan_in, key=head_key)
        self.head_scale, self.context = config.head_scale, config.context

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.vocab

    def __call__(
        self,
        source: _check.Ids,
        target: _check.Ids,
        *,
        mask: Bool[Array, " source_seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq vocab"]:
        """Logits, in float32 at least.

        Args:
            source: tokens in [0, vocab), any number.
            target: tokens of the text to be written, after a first padding token.
            mask: true for the real tokens of the source, false for padding; all are real by default.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: the mask has another length, or an id is out of range (inside a compiled program it gives NaN
                instead).
        """
        encoder_key, decoder_key = (None, None) if key is None else jr.split(key)
        states = self.encode(source, mask=mask, key=encoder_key, inference=inference)
        x = self.embedding(_sequence(target, self.vocab, "target"))
        seen = None if mask is None else mask[None, None, :]
        x = self.decoder(x, states, context_mask=seen, key=decoder_key, inference=inference)
        return _logits(self, x)

    def encode(
        self,
        ids: _check.Ids,
        *,
        mask: Bool[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """States of a source, as `T5Encoder` gives them."""
        return _encoded(self.embedding, self.encoder, ids, mask, key, inference)

    def conditioned(self, source: _check.Ids, *, mask: Bool[Array, " source_seq"] | None = None) -> "ConditionedT5":
        """The decoder with this source, which is read once: a `LanguageModel` for `eqxgen.decoding`."""
        return _conditioned(self, _sequence(source, self.vocab, "source"), mask)

    @property
    def unembedding(self) -> tuple[Float[Array, "vocab dim"], None]:
        """Weight of the output projection, which has no bias."""
        return _unembedding(self), None


class Caches(eqx.Module):
    """Memory of the tokens so far: caches of the blocks, and the number of tokens."""

    blocks: PyTree
    count: Int[Array, ""]


class ConditionedT5(eqx.Module):
    """A T5 that continues a target of one source; see `T5.conditioned`. It cannot be trained."""

    embedding: Embedding
    decoder: T5Half  # its blocks are bound to the source
    head: Projection | None
    head_scale: float = eqx.field(static=True)
    context: int = eqx.field(static=True)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.vocab

    def cache(self, dtype: DTypeLike = jnp.float32) -> Caches:
        """The empty memory, with room for `context` tokens of the target."""
        return Caches(self.decoder.stack.cache(self.context, dtype), jnp.zeros((), jnp.int32))

    def extend(
        self, ids: _check.Ids, cache: Caches, *, count: int | Int[Array, ""] | None = None
    ) -> tuple[Float[Array, " vocab"], Caches]:
        """As `GPT.extend`."""
        ids = _sequence(ids, self.vocab, "ids")
        count = jnp.asarray(len(ids) if count is None else count, jnp.int32)
        x = self.embedding(ids)
        bias = self.decoder.bias(cache.count + jnp.arange(len(ids)), jnp.arange(self.context)).astype(x.dtype)
        x, blocks = self.decoder.stack.extend(x, cache.blocks, count=count, bias=bias)
        last = jax.lax.dynamic_slice_in_dim(x, jnp.maximum(count - 1, 0), 1)
        return _logits(self, self.decoder.norm(last))[0], Caches(blocks, cache.count + count)

    def unrolled(self) -> "ConditionedT5":
        """The model for decoding, see `Stack.unrolled`."""
        return eqx.tree_at(lambda model: model.decoder.stack, self, self.decoder.stack.unrolled())


@eqx.filter_jit
def _conditioned(model: T5, source: Array, mask: Array | None) -> ConditionedT5:
    states = model.encode(source, mask=mask, inference=True)
    seen = None if mask is None else mask[None, None, :]
    stack = model.decoder.stack
    bound = stack.bound(stack.each(lambda block: block.bound(states, context_mask=seen)))
    decoder = eqx.tree_at(lambda half: half.stack, model.decoder, bound)
    return ConditionedT5(model.embedding, decoder, model.head, model.head_scale, model.context)


def _encoded(
    embedding: Embedding, encoder: T5Half, ids: _check.Ids, mask: Array | None, key: Any, inference: bool | None
) -> Float[Array, "seq dim"]:
    ids = _sequence(ids, embedding.vocab, "ids")
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(f"mask must be as long as ids, shape {ids.shape}: got shape {mask.shape}")
    masks = {} if mask is None else {"mask": mask[None, None, :]}
    return encoder(embedding(ids), key=key, inference=inference, **masks)


def _sequence(ids: _check.Ids, vocab: int, name: str) -> Int[Array, " seq"]:
    ids = check_ids(ids, vocab, name, "vocab")
    _check.example(ids, "seq", name=name)
    return ids


def _unembedding(model: T5 | ConditionedT5) -> Float[Array, "vocab dim"]:
    return model.embedding.weight if model.head is None else model.head.weight


def _logits(model: T5 | ConditionedT5, x: Float[Array, "seq dim"]) -> Float[Array, "seq vocab"]:
    return times_rows(x * model.head_scale, _unembedding(model), wide=True)


def _block(config: T5Config, key: PRNGKeyArray) -> TransformerBlock:
    attention_key, mlp_key = jr.split(key)
    norm = functools.partial(RMSNorm, config.dim, epsilon=config.epsilon)
    attention = _attention(config, attention_key, causal=False)
    return TransformerBlock(attention, _mlp(config, mlp_key), attention_norm=norm(), mlp_norm=norm())


def _decoder_block(config: T5Config, causal: bool, key: PRNGKeyArray) -> DecoderBlock:
    attention_key, cross_key, mlp_key = jr.split(key, 3)
    norm = functools.partial(RMSNorm, config.dim, epsilon=config.epsilon)
    cross = CrossAttention(config.dim, **_heads(config), key=cross_key)
    cross = eqx.tree_at(lambda layer: layer.q.weight, cross, cross.q.weight * config.head_dim**-0.5)
    return DecoderBlock(
        _attention(config, attention_key, causal=causal),
        cross,
        _mlp(config, mlp_key),
        attention_norm=norm(),
        cross_norm=norm(),
        mlp_norm=norm(),
    )


def _attention(config: T5Config, key: PRNGKeyArray, *, causal: bool) -> SelfAttention:
    layer = SelfAttention(config.dim, causal=causal, **_heads(config), key=key)
    factor = jnp.ones((config.heads, 3, config.head_dim)).at[:, 0].set(config.head_dim**-0.5)  # queries, keys, values
    return eqx.tree_at(lambda layer: layer.qkv.weight, layer, layer.qkv.weight * factor.reshape(-1, 1))


def _heads(config: T5Config) -> dict[str, Any]:
    sizes = {"heads": config.heads, "head_dim": config.head_dim, "dropout": config.dropout}
    return {**sizes, "scale": 1.0, "bias": False, "init": _fan_in}


def _mlp(config: T5Config, key: PRNGKeyArray) -> MLP | GLU:
    options = {"activation": config.activation, "dropout": config.dropout, "bias": False, "init": _fan_in}
    return (GLU if config.gated else MLP)(config.dim, config.hidden_dim, **options, key=key)
