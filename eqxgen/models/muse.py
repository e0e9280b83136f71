"""Text to masked image tokens: MUSE's two stages (Chang et al. 2023, arXiv:2301.00704).

An encoder reads the text, a bidirectional decoder guesses the masked tokens of an image, each block with attention to
the text. The second, super-resolution stage has low-resolution tokens of the same image as well: an encoder of their
own reads them, and its states follow those of the text in the attention.

The loss is `eqxgen.losses.masked`, whose cosine schedule of a uniform number is the paper's density of the masked
share, 2 / (π √(1 - r²)). The sampler is `eqxgen.decoding.masked`; the paper's guidance rises with the steps
(`guidance_ramp=1`). A text is a row of ids that `end` fills up, see `eqxgen.models.text_conditional`. Its encoder is a
frozen one, in the paper that of T5-XXL, or the model's own.

Difference: the head is a norm and a matrix.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import MuseConfig
from eqxgen.models.t5 import T5Encoder, T5Half
from eqxgen.models.text_conditional import FrozenText, TextConditional, text_parts
from eqxgen.nn import Embedding, Projection, _check
from eqxgen.nn.linear import check_ids, times_rows

_normal = jax.nn.initializers.normal(0.02)
_fan_in = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)


class LowEncoder(eqx.Module):
    """Encoder of low-resolution tokens.

    Args:
        tokens: of one image.
        codes: size of their codebook.
        config: the sizes, of which `low_depth` is the depth.
    """

    embedding: Embedding
    positions: Float[Array, "low dim"]
    encoder: T5Half | None

    def __init__(self, tokens: int, codes: int, config: MuseConfig, *, key: PRNGKeyArray):
        _check.positive(low_tokens=tokens, low_codes=codes)
        code_key, place_key, key = jr.split(key, 3)
        self.embedding = Embedding(codes, config.dim, key=code_key)
        self.positions = _normal(place_key, (tokens, config.dim), jnp.float32)
        sizes = dataclasses.replace(config, depth=max(1, config.low_depth))
        self.encoder = T5Half(sizes, causal=False, biased=False, key=key) if config.low_depth else None

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.positions.shape[0]

    def __call__(
        self, ids: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "low dim"]:
        """States of the tokens.

        Raises:
            ValueError: an id is no integer or out of range (under jit it gives NaN states instead), or there are more
                or fewer than the positions.
        """
        ids = check_ids(ids, self.embedding.vocab, "low", "low codes")
        _check.example(ids, name="low", low_tokens=self.tokens)
        x = self.embedding(ids)
        x = x + self.positions.astype(x.dtype)
        return x if self.encoder is None else self.encoder(x, key=key, inference=inference)


class Muse(TextConditional):
    """Logits of every token of one image, from a text and the tokens that are not masked.

    Args:
        grid: rows and columns of the tokens.
        codes: size of the image tokenizer's codebook.
        vocab: size of the texts' vocabulary; None with a frozen encoder.
        config: the sizes.
        text_dim: width of the states of a frozen encoder of texts, see `reading`; by default the model has its own.
        low: tokens and codes of the low-resolution images; None for a first stage.
    """

    text: T5Encoder | None
    projection: Projection | None
    frozen: FrozenText | None
    low: LowEncoder | None
    embedding: Embedding
    positions: Float[Array, "tokens dim"]
    decoder: T5Half
    head: Projection
    below: Float[Array, "low dim"] | None  # states of the low-resolution tokens, see `given`
    grid: tuple[int, int] = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self,
        grid: tuple[int, int],
        codes: int,
        vocab: int | None,
        config: MuseConfig,
        *,
        text_dim: int | None = None,
        low: tuple[int, int] | None = None,
        key: PRNGKeyArray,
    ):
        grid = _check.pair("grid", grid, "rows", "columns")
        low = None if low is None else _check.pair("low", low, "tokens", "codes")
        _check.positive(codes=codes)
        text_key, low_key, code_key, place_key, decoder_key, head_key = jr.split(key, 6)
        self.text, self.projection = text_parts(vocab, text_dim, config, key=text_key)
        self.frozen = None
        self.low = None if low is None else LowEncoder(*low, config, key=low_key)
        self.embedding = Embedding(codes + 1, config.dim, key=code_key)
        self.positions = _normal(place_key, (grid[0] * grid[1], config.dim), jnp.float32)
        self.decoder = T5Half(config, causal=False, cross=True, biased=False, key=decoder_key)
        self.head = Projection(config.dim, codes, bias=False, init=_fan_in, key=head_key)
        self.below, self.grid, self.context = None, grid, config.context

    @property
    def mask_id(self) -> int:
        """The id of a masked token."""
        return self.codes

    def __call__(
        self,
        ids: _check.Ids,
        text: _check.Ids,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least.

        Args:
            ids: codes in [0, codes), or `mask_id`: an array (tokens,) of integers, or a list.
            text: ids in [0, vocab) and, from the end on, `end`; at most `context` of them.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: an id is no integer or out of range (under jit it gives NaN logits instead), there are more or
                fewer than the shapes say, or a second stage is not `given` its low-resolution tokens.
        """
        text_key, decoder_key = (None, None) if key is None else jr.split(key)
        states, seen = self.read(text, text_key, inference)
        return self._decoded(ids, states, seen, decoder_key, inference)

    def given(self, low: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None) -> "Muse":
        """A second stage with the low-resolution tokens of one image, which every text and the empty one go with.

        Args:
            low: ids (low,).
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: the model is a first stage, or the ids are none of the low-resolution tokenizer's.
        """
        if self.low is None:
            raise ValueError("given needs a second stage, a model with low=(tokens, codes): got a first stage")
        states = self.low(low, key=key, inference=inference)
        return eqx.tree_at(lambda model: model.below, self, states, is_leaf=lambda leaf: leaf is None)

    def read(
        self, text: _check.Ids, key: Any = None, inference: bool | None = None
    ) -> tuple[Float[Array, "read dim"], Bool[Array, "1 1 read"]]:
        """States of the text and then of the low-resolution tokens, and a mask of those that are read."""
        states, seen = super().read(text, key, inference)
        if self.low is None:
            return states, seen
        if self.below is None:
            raise ValueError("a second stage needs low-resolution tokens: call model.given(low) first")
        below = jnp.ones((1, 1, self.below.shape[0]), bool)
        return jnp.concatenate([states, self.below.astype(states.dtype)]), jnp.concatenate([seen, below], axis=-1)

    def conditioned(self, text: _check.Ids) -> Callable[[Int[Array, " tokens"]], Float[Array, "tokens codes"]]:
        """The model with a text that is read once, ids -> logits; without dropout."""
        states, seen = self.read(text, None, True)
        return lambda ids: self._decoded(ids, states, seen, None, True)

    def _decoded(self, ids: _check.Ids, states: Array, seen: Array, key: Any, inference: bool | None) -> Array:
        ids = check_ids(ids, self.codes + 1, "ids", "codes + 1 mask")
        _check.example(ids, name="ids", tokens=self.tokens)
        x = self.embedding(ids)
        x = x + self.positions.astype(x.dtype)
        x = self.decoder(x, states, context_mask=seen, key=key, inference=inference)
        return times_rows(x, self.head.weight, wide=True)
