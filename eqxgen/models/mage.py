"""MAGE: an encoder of some of an image's tokens and a decoder of the masked ones (Li et al. 2022, arXiv:2211.09117).

One net is trained on masked tokens, draws images by `eqxgen.decoding.masked`, and gives features. One table embeds
codes, the mask and the labels. The encoder's sequence is the label's token, the null label's by default, followed by
the tokens that were kept; the decoder's is padded with the encoder's first token in place of every masked one. The head
is dense, gelu, norm, and a product with the table's code rows plus a bias. Blocks are pre-norm with an epsilon of 1e-6.
The loss is `eqxgen.losses.mage`.

Differences: labels, of which the original has only the null one; weights are drawn from a truncated normal of deviation
0.02, the decoder's positions from one as wide as the states that they are added to; an MLP has no dropout between its
projections. MAGE-C's projection has one hidden layer.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import MAGEConfig
from eqxgen.models.vit import encoder, normal
from eqxgen.nn import Dropout, Embedding, LayerNorm, Projection, Stack, _check
from eqxgen.nn._mesh import on_mesh_of, take_rows
from eqxgen.nn.activation import Activation
from eqxgen.nn.linear import check_ids, times_rows
from eqxgen.rng import RNG

_EPSILON = 1e-6


class MAGEEncoder(eqx.Module):
    """States of a label's token and of an image's tokens, or of some of them.

    Args:
        tokens: tokens of one image.
        codes: size of the tokenizer's codebook.
        labels: rows of the table for labels, the null one among them.
        config: the sizes.
    """

    embedding: Embedding  # codes, the mask, labels, spare rows
    positions: Float[Array, "length dim"]
    embedding_norm: LayerNorm
    dropout: Dropout
    stack: Stack
    norm: LayerNorm
    codes: int = eqx.field(static=True)
    labels: int = eqx.field(static=True)

    def __init__(self, tokens: int, codes: int, labels: int, config: MAGEConfig, *, key: PRNGKeyArray):
        keys, dim = RNG(key), config.dim
        self.embedding = Embedding(codes + 1 + labels + config.spare, dim, init=normal, key=next(keys))
        self.positions = normal(next(keys), (tokens + 1, dim), jnp.float32)
        self.embedding_norm = LayerNorm(dim, epsilon=_EPSILON)
        self.dropout = Dropout(config.dropout)
        self.stack = _blocks(config, dim, config.depth, config.heads, config.hidden_dim, next(keys))
        self.norm = LayerNorm(dim, epsilon=_EPSILON)
        self.codes, self.labels = codes, labels

    def __call__(
        self,
        ids: Int[Array, " tokens"],
        label: Int[Array, ""],
        *,
        kept: Int[Array, " kept"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "states dim"]:
        """States before the last norm, the label's first.

        Args:
            ids: codes in [0, codes), or the mask's id, `codes`.
            label: in [0, labels).
            kept: numbers of the tokens that are seen; by default all.
            key: of dropout; needed in training.
            inference: no dropout, if true.
        """
        embed_key, stack_key = (None, None) if key is None else jax.random.split(key)
        # Under jit, ids and labels out of range become NaN instead of a token of another kind.
        first = jnp.where((label >= 0) & (label < self.labels), self.codes + 1 + label, -1)
        ids = jnp.where((ids >= 0) & (ids <= self.codes), ids, -1)
        sequence, positions = jnp.concatenate([first[None], ids]), self.positions
        if kept is not None:
            rows = jnp.pad(kept + 1, (1, 0))
            sequence, positions = sequence[rows], take_rows(positions, rows)
        x = self.embedding_norm(self.embedding(sequence) + positions)
        return self.stack(self.dropout(x, key=embed_key, inference=inference), key=stack_key, inference=inference)


class MAGE(eqx.Module):
    """Logits for every token of one image, from a sequence in which some are masked.

    Args:
        tokens: tokens of one image.
        codes: size of the tokenizer's codebook.
        classes: number of labels beside the null one; 0 for a model of images alone.
        config: the sizes.
    """

    encoder: MAGEEncoder
    embedding: Projection
    positions: Float[Array, "length decoder_dim"]
    stack: Stack
    norm: LayerNorm
    head: Projection
    head_norm: LayerNorm
    head_bias: Float[Array, " entries"]  # of every row of the table; those of the codes are used
    projection: Projection | None
    last: Projection | None
    tokens: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    config: MAGEConfig = eqx.field(static=True)

    def __init__(self, tokens: int, codes: int, classes: int, config: MAGEConfig, *, key: PRNGKeyArray):
        _check.positive(tokens=tokens, codes=codes)
        _check.not_negative(classes=classes)
        keys, dim = RNG(key), config.decoder_dim
        self.encoder = MAGEEncoder(tokens, codes, classes + 1, config, key=next(keys))
        self.embedding = Projection(config.dim, dim, init=normal, key=next(keys))
        # As large as embedded states, from which alone the masked tokens could not be told apart at the start.
        self.positions = normal(next(keys), (tokens + 1, dim), jnp.float32) * config.dim**0.5
        sizes = config.decoder_depth, config.decoder_heads, config.decoder_hidden_dim
        self.stack = _blocks(config, dim, *sizes, next(keys))
        self.norm = LayerNorm(dim, epsilon=_EPSILON)
        self.head = Projection(dim, config.dim, init=normal, key=next(keys))
        self.head_norm = LayerNorm(config.dim, epsilon=1e-5)
        self.head_bias = jnp.zeros(self.encoder.embedding.vocab)
        width, hidden = config.projection, config.dim
        self.projection = Projection(hidden, hidden, key=next(keys)) if width else None
        self.last = Projection(hidden, width, key=next(keys)) if width else None
        self.tokens, self.classes, self.config = tokens, classes, config

    @property
    def codes(self) -> int:
        """Number of codes; ids are in [0, codes)."""
        return self.encoder.codes

    @property
    def mask_id(self) -> int:
        """The id of a masked token."""
        return self.codes

    @property
    def null_label(self) -> int:
        """Label of an example without one."""
        return self.classes

    def check_condition(self, label: _check.Ids) -> Int[Array, ""]:
        """The label as an array.

        Raises:
            ValueError: it is no integer, no scalar or out of range; inside a compiled program a label out of the range
                gives NaN logits instead.
        """
        return _check.label(label, self.classes)

    def __call__(
        self,
        ids: _check.Ids,
        label: _check.Ids | None = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least, with no token dropped: as in generation.

        Args:
            ids: codes in [0, codes), or `mask_id`: an array (tokens,) of integers, or a list.
            label: in [0, classes), or `null_label`, which is the default.
            key: of dropout; needed in training.
            inference: no dropout, if true.

        Raises:
            ValueError: an id or a label is no integer, of another shape, or out of range; under jit a token out of
                range gives NaN logits instead.
        """
        ids, label = self._checked(ids, label)
        encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
        states = self.encoded(ids, label, key=encoder_key, inference=inference)
        return self.decoded(states, ids == self.mask_id, key=decoder_key, inference=inference)

    def encoded(
        self,
        ids: Int[Array, " tokens"],
        label: Int[Array, ""],
        *,
        kept: Int[Array, " kept"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "states dim"]:
        """States of the label's token and of the tokens that were kept; the arguments are those of the encoder."""
        return self.encoder.norm(self.encoder(ids, label, kept=kept, key=key, inference=inference))

    def decoded(
        self,
        states: Float[Array, "states dim"],
        masked: Bool[Array, " tokens"],
        *,
        kept: Int[Array, " kept"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least, from the states of `encoded`.

        Args:
            states: the label's first.
            masked: tokens whose input is the label's state, whether they were kept or not.
            kept: numbers of the tokens of the other states; by default all.
            key: of dropout; needed in training.
            inference: no dropout, if true.
        """
        x = self.embedding(states)
        numbers = jnp.arange(self.tokens) if kept is None else kept
        state = jnp.zeros(self.tokens, jnp.int32).at[numbers].set(jnp.arange(1, len(x), dtype=jnp.int32))
        places = jnp.pad(jnp.where(masked, 0, state), (1, 0))
        with on_mesh_of(x):
            x = x[places]
        x = self.stack(x + self.positions.astype(x.dtype), key=key, inference=inference)
        x = self.head_norm(Activation("gelu")(self.head(self.norm(x)[1:])))
        table = self.encoder.embedding.weight[: self.codes]
        table = table if self.config.head_gradient else jax.lax.stop_gradient(table)
        logits = times_rows(x, table, wide=True)
        return logits + self.head_bias[None, : self.codes].astype(logits.dtype)

    def features(self, ids: _check.Ids, label: _check.Ids | None = None) -> Float[Array, " dim"]:
        """Mean of the encoder's states of all tokens, normalised without parameters: the input of a linear probe
        (section 4.2; the original's average pooling and untrained norm).

        Args:
            ids: codes (tokens,) of an image.
            label: `null_label` by default.
        """
        ids, label = self._checked(ids, label)
        return pooled(self.encoder(ids, label, inference=True))

    def projected(self, states: Float[Array, "states dim"]) -> Float[Array, " projection"]:
        """Vector that MAGE-C contrasts (section 3.3), from the states of `encoded`.

        Raises:
            ValueError: the model has no projection.
        """
        if self.projection is None or self.last is None:
            raise ValueError("projected needs a model of config.projection above 0: got 0")
        mean = jnp.mean(states[1:], axis=0)
        return self.last(jax.nn.relu(self.projection(mean)))

    def _checked(self, ids: _check.Ids, label: _check.Ids | None) -> tuple[Array, Array]:
        ids = check_ids(ids, self.codes + 1, "ids", "codes + 1 mask")
        label = self.check_condition(self.null_label if label is None else label)
        _check.example(ids, name="ids", tokens=self.tokens)
        return ids, label


def pooled(states: Float[Array, "states dim"]) -> Float[Array, " dim"]:
    """Mean of the states of the tokens, the label's left out, normalised without parameters; float32 at least."""
    mean = widen(jnp.mean(states[1:], axis=0))
    centred = mean - jnp.mean(mean)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2) + _EPSILON)


def _blocks(config: MAGEConfig, dim: int, depth: int, heads: int, hidden_dim: int, key: PRNGKeyArray) -> Stack:
    rates: dict[str, Any] = {"dropout": config.dropout, "attention_dropout": config.dropout}
    remat = "full" if config.remat else "none"
    return encoder(dim, depth, heads, hidden_dim=hidden_dim, epsilon=_EPSILON, **rates, remat=remat, key=key)
