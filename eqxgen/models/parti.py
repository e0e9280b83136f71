"""Text to image tokens: Parti's encoder and decoder (Yu et al. 2022, arXiv:2206.10789).

T5's encoder reads the text in both directions, T5's decoder writes the image's tokens row by row, each block with
attention to the text. The decoder's first token is a start of its own. The loss is `eqxgen.losses.image_ar`, the
sampler `eqxgen.decoding.images`.

A text is a row of ids that `end` fills up, see `eqxgen.models.text_conditional`, which also has frozen encoders in the
place of the model's own.

Differences: the decoder's attention is dense, where the paper's is sparse with the form of a convolution; positions are
T5's biases and a learned position of each image token, of which the paper says nothing; the encoder is not pretrained.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from eqxgen.configs import PartiConfig
from eqxgen.models.t5 import T5Encoder, T5Half
from eqxgen.models.text_conditional import FrozenText, TextConditional, text_parts
from eqxgen.nn import Embedding, Projection, _check
from eqxgen.nn.linear import check_ids, times_rows
from eqxgen.nn.transformer.decoder import Bound

_normal = jax.nn.initializers.normal(0.02)
_fan_in = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)


class Caches(eqx.Module):
    """Memory of a text and the tokens so far.

    Attributes:
        blocks: caches of the self-attentions.
        texts: keys and values of the text, of each block.
        seen: the real tokens of the text.
        count: number of tokens that were given.
    """

    blocks: PyTree
    texts: PyTree
    seen: Bool[Array, "1 1 text"]
    count: Int[Array, ""]


class Parti(TextConditional):
    """Logits of every token of one image, each from the text and the tokens before it.

    Args:
        grid: rows and columns of the tokens.
        codes: size of the image tokenizer's codebook.
        vocab: size of the texts' vocabulary; None with a frozen encoder.
        config: the sizes.
        text_dim: width of the states of a frozen encoder of texts, see `reading`; by default the model has its own.
    """

    text: T5Encoder | None
    projection: Projection | None
    frozen: FrozenText | None
    embedding: Embedding
    positions: Float[Array, "tokens dim"] | None
    decoder: T5Half
    head: Projection | None
    head_scale: float = eqx.field(static=True)
    grid: tuple[int, int] = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self,
        grid: tuple[int, int],
        codes: int,
        vocab: int | None,
        config: PartiConfig,
        *,
        text_dim: int | None = None,
        key: PRNGKeyArray,
    ):
        grid = _check.pair("grid", grid, "rows", "columns")
        _check.positive(codes=codes)
        text_key, code_key, place_key, decoder_key, head_key = jr.split(key, 5)
        self.text, self.projection = text_parts(vocab, text_dim, config, key=text_key)
        self.frozen = None
        self.embedding = Embedding(codes + 1, config.dim, key=code_key)
        places = (grid[0] * grid[1], config.dim)
        self.positions = _normal(place_key, places, jnp.float32) if config.positions else None
        self.decoder = T5Half(config, causal=True, key=decoder_key)
        self.head = None if config.tied else Projection(config.dim, codes, bias=False, init=_fan_in, key=head_key)
        self.head_scale, self.grid, self.context = config.head_scale, grid, config.context

    def __call__(
        self,
        ids: _check.Ids,
        text: _check.Ids,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least; the last token is not read.

        Args:
            ids: codes in [0, codes): an array (tokens,) of integers, or a list.
            text: ids in [0, vocab) and, from the end on, `end`; at most `context` of them.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: an id is no integer or out of range (under jit it gives NaN logits instead), or there are more
                or fewer than the shapes say.
        """
        ids = check_ids(ids, self.codes, "ids", "codes")
        _check.example(ids, name="ids", tokens=self.tokens)
        text_key, decoder_key = (None, None) if key is None else jr.split(key)
        states, seen = self.read(text, text_key, inference)
        before = jnp.pad(ids[:-1], (1, 0), constant_values=self.codes)
        x = self._placed(self.embedding(before), self.positions)
        return self._logits(self.decoder(x, states, context_mask=seen, key=decoder_key, inference=inference))

    def start(self, text: _check.Ids, dtype: DTypeLike = jnp.float32) -> tuple[Float[Array, " codes"], Caches]:
        """Logits of the first token, and the memory of the text, with room for all tokens but the last. The text is
        encoded here, and its keys and values are computed, once.
        """
        states, seen = self.read(text, None, True)
        texts = self.decoder.stack.each(lambda block: block.bound(states).context)
        empty = Caches(self.decoder.stack.cache(self.tokens, dtype), texts, seen, jnp.zeros((), jnp.int32))
        return self._extended(self.embedding(jnp.full((1,), self.codes)), empty)

    def extend(self, token: _check.Ids, cache: Caches) -> tuple[Float[Array, " codes"], Caches]:
        """Logits of the next token, and the memory with the token added; without dropout.

        Raises:
            ValueError: the id is out of range, or the memory is full; under jit the logits are NaN instead.
        """
        return self._extended(self.embedding(check_ids(token, self.codes, "token", "codes"))[None], cache)

    def unrolled(self) -> "Parti":
        """The model for decoding, see `Stack.unrolled`; it cannot be trained."""
        return eqx.tree_at(lambda model: model.decoder.stack, self, self.decoder.stack.unrolled())

    def _extended(self, x: Array, cache: Caches) -> tuple[Array, Caches]:
        places = self.positions
        if places is not None:
            places = places.at[cache.count[None]].get(mode="fill", fill_value=jnp.nan)
        x = self._placed(x, places)
        bias = self.decoder.bias(cache.count[None], jnp.arange(self.tokens)).astype(x.dtype)
        bind = lambda block, text: Bound(block, text, cache.seen)
        stack = self.decoder.stack.bound(self.decoder.stack.each(bind, cache.texts))
        x, blocks = stack.extend(x, cache.blocks, bias=bias)
        return self._logits(self.decoder.norm(x))[0], Caches(blocks, cache.texts, cache.seen, cache.count + 1)

    def _placed(self, x: Array, places: Array | None) -> Array:
        return x if places is None else x + places.astype(x.dtype)

    def _logits(self, x: Array) -> Array:
        weight = self.embedding.weight[:-1] if self.head is None else self.head.weight
        return times_rows(x * self.head_scale, weight, wide=True)
