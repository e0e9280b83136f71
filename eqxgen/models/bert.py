"""BERT: a bidirectional transformer over tokens (Devlin et al. 2018, arXiv:1810.04805), alone and with its two heads.

Post-norm blocks with exact GELU after a sum of three embeddings (token, position, kind of token) and a norm. Weights
are drawn from a normal of deviation 0.02; biases start at zero. Padding is masked as keys: the states of real tokens do
not depend on it.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import BERTConfig
from eqxgen.nn import (
    MLP,
    Activation,
    Dropout,
    Embedding,
    LayerNorm,
    Projection,
    SelfAttention,
    Stack,
    TransformerBlock,
    _check,
)
from eqxgen.nn.linear import check_ids, take_rows, times_rows

_normal = jax.nn.initializers.normal(0.02)


class BERT(eqx.Module):
    """States of the tokens of one sequence.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
        pooled: with the projection of `pooled`, as in all published models but those of masked tokens.
    """

    embedding: Embedding
    positions: Float[Array, "context dim"]
    types: Embedding
    norm: LayerNorm
    dropout: Dropout
    stack: Stack
    pooler: Projection | None
    pooling: str = eqx.field(static=True)

    def __init__(self, vocab: int, config: BERTConfig, *, pooled: bool = True, key: PRNGKeyArray):
        _check.positive(vocab=vocab)
        keys = jr.split(key, 5)
        self.embedding = Embedding(vocab, config.dim, init=_normal, key=keys[0])
        self.positions = _normal(keys[1], (config.context, config.dim), jnp.float32)
        self.types = Embedding(config.types, config.dim, init=_normal, key=keys[2])
        self.norm, self.dropout = LayerNorm(config.dim, epsilon=config.epsilon), Dropout(config.dropout)
        self.stack = Stack(functools.partial(_block, config), config.depth, remat=config.remat, key=keys[3])
        self.pooler = Projection(config.dim, config.dim, init=_normal, key=keys[4]) if pooled else None
        self.pooling = config.pooling

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.vocab

    @property
    def context(self) -> int:
        """Tokens of a sequence, at most."""
        return self.positions.shape[0]

    def __call__(
        self,
        ids: _check.Ids,
        types: _check.Ids | None = None,
        *,
        mask: Bool[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """States after the last block.

        Args:
            ids: tokens in [0, vocab), at most `context` of them.
            types: kind of each token; 0 by default.
            mask: true for the real tokens, false for padding; all are real by default.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: there are more tokens than `context`, the lengths differ, or an id is out of range (inside a
                compiled program it gives NaN instead).
        """
        ids = check_ids(ids, self.vocab, "ids", "vocab")
        _check.example(ids, "seq", name="ids")
        if ids.shape[0] > self.context:
            raise ValueError(f"ids must be at most context={self.context} tokens: got {ids.shape[0]}")
        types = jnp.zeros_like(ids) if types is None else check_ids(types, self.types.vocab, "types", "types")
        _same_length(ids, types=types, mask=mask)
        embed_key, stack_key = (None, None) if key is None else jr.split(key)
        x = self.embedding(ids)
        x = x + self.types(types) + self.positions[: ids.shape[0]].astype(x.dtype)
        x = self.dropout(self.norm(x), key=embed_key, inference=inference)
        keys = None if mask is None else mask[None, None, :]
        return self.stack(x, mask=keys, key=stack_key, inference=inference)

    def pooled(self, states: Float[Array, "seq dim"], mask: Bool[Array, " seq"] | None = None) -> Float[Array, " dim"]:
        """Vector of a sequence: a projection and tanh of the first token's state, or of the mean or the maximum of each
        feature over the real tokens.

        Args:
            states: of the tokens.
            mask: true for the real tokens; all are real by default. Without any, the mean and the maximum are zero.

        Raises:
            ValueError: the model was made without it.
        """
        if self.pooler is None:
            raise ValueError("pooled needs a BERT with pooled=True: got one without the projection")
        if self.pooling == "first":
            return jnp.tanh(self.pooler(states[0]))
        mask = jnp.ones(len(states), bool) if mask is None else mask
        if self.pooling == "max":
            real = jnp.where(mask[:, None], states, jnp.finfo(states.dtype).min)
            return jnp.tanh(self.pooler(jnp.where(jnp.any(mask), jnp.max(real, axis=0), 0)))
        weight = mask.astype(jnp.float32)
        mean = jnp.sum(weight[:, None] * states, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
        return jnp.tanh(self.pooler(mean.astype(states.dtype)))


class BERTMaskedLM(eqx.Module):
    """Logits of the token at each place of one sequence (section 3.1, task 1).

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    bert: BERT
    transform: Projection
    activation: Activation
    norm: LayerNorm
    head: Projection | None
    bias: Float[Array, " vocab"]

    def __init__(self, vocab: int, config: BERTConfig, *, key: PRNGKeyArray):
        bert_key, transform_key, head_key = jr.split(key, 3)
        self.bert = BERT(vocab, config, pooled=False, key=bert_key)
        self.transform = Projection(config.dim, config.dim, init=_normal, key=transform_key)
        self.activation = Activation(config.activation)
        self.norm = LayerNorm(config.dim, epsilon=config.epsilon)
        self.head = None if config.tied else Projection(config.dim, vocab, bias=False, init=_normal, key=head_key)
        self.bias = jnp.zeros(vocab)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.bert.vocab

    def __call__(
        self,
        ids: _check.Ids,
        types: _check.Ids | None = None,
        *,
        mask: Bool[Array, " seq"] | None = None,
        places: Int[Array, " places"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "_ vocab"]:
        """Logits, in float32 at least: of every token, or of those at some places alone, which saves the projection of
        the others. The other arguments are those of `BERT`.

        Raises:
            ValueError: the places are no list of integers, or one is beyond the tokens; under jit its logits are NaN.
        """
        x = self.bert(ids, types, mask=mask, key=key, inference=inference)
        if places is not None:
            places = _check.ids(places, len(x), "places", "tokens")
            _check.example(places, "places", name="places")
            x = take_rows(x, places)
        x = self.norm(self.activation(self.transform(x)))
        weight, bias = self.unembedding
        logits = times_rows(x, weight, wide=True)
        return logits + bias[None].astype(logits.dtype)

    @property
    def unembedding(self) -> tuple[Float[Array, "vocab dim"], Float[Array, " vocab"]]:
        """Weight and bias of the output projection."""
        return self.bert.embedding.weight if self.head is None else self.head.weight, self.bias


class BERTClassifier(eqx.Module):
    """Logits of the label of one sequence or pair of sequences (section 4.1).

    Args:
        vocab: size of the vocabulary.
        labels: number of labels.
        config: the sizes.
    """

    bert: BERT
    dropout: Dropout
    head: Projection

    def __init__(self, vocab: int, labels: int, config: BERTConfig, *, key: PRNGKeyArray):
        _check.positive(labels=labels)
        bert_key, head_key = jr.split(key)
        self.bert = BERT(vocab, config, key=bert_key)
        self.dropout = Dropout(config.dropout if config.head_dropout is None else config.head_dropout)
        self.head = Projection(config.dim, labels, init=_normal, key=head_key)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.bert.vocab

    @property
    def labels(self) -> int:
        """Number of labels."""
        return self.head.out_dim

    def __call__(
        self,
        ids: _check.Ids,
        types: _check.Ids | None = None,
        *,
        mask: Bool[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " labels"]:
        """Logits; the arguments are those of `BERT`."""
        bert_key, drop_key = (None, None) if key is None else jr.split(key)
        x = self.bert.pooled(self.bert(ids, types, mask=mask, key=bert_key, inference=inference), mask)
        return self.head(self.dropout(x, key=drop_key, inference=inference))


def _block(config: BERTConfig, key: PRNGKeyArray) -> TransformerBlock:
    attention_key, mlp_key = jr.split(key)
    norm = functools.partial(LayerNorm, config.dim, epsilon=config.epsilon)
    return TransformerBlock(
        SelfAttention(
            config.dim,
            config.heads,
            dropout=config.dropout,
            probs_dropout=config.attention_dropout,
            init=_normal,
            key=attention_key,
        ),
        MLP(
            config.dim,
            config.hidden_dim,
            activation=config.activation,
            dropout=config.dropout,
            init=_normal,
            key=mlp_key,
        ),
        attention_norm=norm(),
        mlp_norm=norm(),
        placement="post",
    )


def _same_length(ids: Array, **others: Array | None) -> None:
    for name, other in others.items():
        if other is not None and other.shape != ids.shape:
            raise ValueError(f"{name} must be as long as ids, shape {ids.shape}: got shape {other.shape}")
