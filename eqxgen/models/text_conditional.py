"""Texts as conditions of models of image tokens: rows of ids that `end` fills up, read by an encoder, which is the
model's own or a frozen one.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import T5Config
from eqxgen.models.clip import TextTower
from eqxgen.models.t5 import T5Encoder
from eqxgen.nn import Embedding, Projection, _check
from eqxgen.nn.linear import check_ids

_fan_in = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)


class FrozenText(eqx.Module):
    """States of texts by an encoder that is not trained: T5's, or the text tower of CLIP after its last norm.

    Args:
        net: the encoder.
        end: id after the last token of a text.
        begin: id before the first token, as CLIP's; None for none. Rows of ids are without it.

    Raises:
        ValueError: an id is not of the encoder's vocabulary, or tokens of a tower attend to those after them, so that
            its states depend on the padding that it was trained with.
    """

    net: T5Encoder | TextTower
    end: int = eqx.field(static=True)
    begin: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        for name in ("end", "begin"):
            id = getattr(self, name)
            if id is not None and not 0 <= id < self.vocab:
                raise ValueError(f"{name} must be in [0, vocab={self.vocab}): got {id}")
        if isinstance(self.net, TextTower) and not self.net.config.causal:
            raise ValueError("net must be causal, as the text tower of CLIP: got one whose tokens attend to all others")

    @property
    def vocab(self) -> int:
        """Number of ids."""
        return self.net.embedding.vocab

    @property
    def dim(self) -> int:
        """Width of a state."""
        return self.net.embedding.dim

    @property
    def context(self) -> int | None:
        """Largest number of ids in a row; None where there is no limit."""
        return self.net.config.context - (self.begin is not None) if isinstance(self.net, TextTower) else None

    def __call__(self, text: Int[Array, " text"]) -> tuple[Float[Array, "read dim"], Bool[Array, " read"]]:
        """States of the begin, where there is one, and of the row; and a mask of those up to the first end."""
        real = until_end(text, self.end)
        if self.begin is not None:
            text = jnp.pad(text, (1, 0), constant_values=self.begin)
            real = jnp.pad(real, (1, 0), constant_values=True)
        if isinstance(self.net, TextTower):
            return self.net.tokens(text, mask=real), real
        return self.net(text, mask=real, inference=True), real


class TextConditional(eqx.Module):
    """A model of image tokens with an encoder of texts. The empty text, `end` alone, is the null condition of guidance:
    training replaces texts by it, so that no parameter is of the null alone and attention has a token to read.

    Attributes:
        text: the model's own encoder, whose last id is the end; None for a frozen one.
        projection: of the states of a frozen encoder to the model's width (Saharia et al. 2022, arXiv:2205.11487; Chang
            et al. 2023, arXiv:2301.00704, section 2.1); None beside an encoder of its own.
        frozen: the frozen encoder, see `reading`.
        embedding: of the codes and one id more.
        grid: rows and columns of the image tokens.
        context: capacity of a text in ids.
    """

    text: eqx.AbstractVar[T5Encoder | None]
    projection: eqx.AbstractVar[Projection | None]
    frozen: eqx.AbstractVar[FrozenText | None]
    embedding: eqx.AbstractVar[Embedding]
    grid: eqx.AbstractVar[tuple[int, int]]
    context: eqx.AbstractVar[int]

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def codes(self) -> int:
        """Number of codes; ids are in [0, codes)."""
        return self.embedding.vocab - 1

    @property
    def vocab(self) -> int:
        """Size of the texts' vocabulary, without the end of a model with an encoder of its own."""
        return self._frozen.vocab if self.text is None else self.text.vocab - 1

    @property
    def end(self) -> int:
        """Id after the last token of a text."""
        return self._frozen.end if self.text is None else self.vocab

    @property
    def null_label(self) -> int:
        """Id that fills the empty text, the condition of an example without one."""
        return self.end

    def reading(self, encoder: FrozenText) -> Any:
        """The model with its frozen encoder, which is no part of the model that is trained and stored.

        Raises:
            ValueError: the model has an encoder of its own, or the encoder has states of another width or too short a
                context.
        """
        if self.projection is None:
            raise ValueError("reading needs a model with text_dim, for a frozen encoder: got one with its own encoder")
        if encoder.dim != self.projection.in_dim:
            raise ValueError(f"encoder must have states of text_dim={self.projection.in_dim}: got {encoder.dim}")
        if encoder.context is not None and encoder.context < self.context:
            raise ValueError(f"encoder must have room for context={self.context} ids of a text: got {encoder.context}")
        return eqx.tree_at(lambda model: model.frozen, self, encoder, is_leaf=lambda leaf: leaf is None)

    def check_condition(self, text: _check.Ids) -> Int[Array, " text"]:
        """The text as an array.

        Raises:
            ValueError: it has not 1 to `context` ids in [0, vocab], of which `vocab` is the end, with a frozen encoder
                in [0, vocab); inside a compiled program ids out of the range give NaN logits instead. Or the model is
                not `reading` its frozen encoder.
        """
        if self.text is None:
            text = check_ids(text, self._frozen.vocab, "text", "vocab")
        else:
            text = check_ids(text, self.text.vocab, "text", "vocab + 1 end")
        _check.example(text, "text", name="text")
        if not 1 <= text.shape[0] <= self.context:
            raise ValueError(f"text must be of 1 to context={self.context} ids: got {text.shape[0]}")
        return text

    def read(
        self, text: _check.Ids, key: Any = None, inference: bool | None = None
    ) -> tuple[Float[Array, "read dim"], Bool[Array, "1 1 read"]]:
        """States of the text, and a mask of its tokens with the first end."""
        text = self.check_condition(text)
        if self.text is None:
            assert self.projection is not None
            states, real = self._frozen(text)
            states = self.projection(states.astype(self.projection.weight.dtype))
        else:
            real = until_end(text, self.end)
            states = self.text(text, mask=real, key=key, inference=inference)
        return states, real[None, None, :]

    @property
    def _frozen(self) -> FrozenText:
        if self.frozen is None:
            raise ValueError("a model with text_dim needs its frozen encoder: call model.reading(encoder) first")
        return self.frozen


def until_end(text: Int[Array, " text"], end: int) -> Bool[Array, " text"]:
    """Mask of the ids up to the first end, which is one of them."""
    ends = text == end
    return jnp.cumsum(ends) - ends == 0


def text_parts(
    vocab: int | None, text_dim: int | None, config: T5Config, *, key: PRNGKeyArray
) -> tuple[T5Encoder | None, Projection | None]:
    """The encoder and the projection of a model, of which one is None.

    Args:
        vocab: size of the vocabulary of an encoder of its own, without the end.
        text_dim: width of the states of a frozen encoder.
        config: sizes of an encoder of its own, and the width of the model.

    Raises:
        ValueError: both numbers are given, or neither, or one is not positive.
    """
    if (vocab is None) == (text_dim is None):
        raise ValueError(
            "vocab must be given for an encoder of texts of its own, or text_dim for a frozen one: got "
            + ("neither" if vocab is None else f"vocab={vocab} and text_dim={text_dim}")
        )
    if vocab is not None:
        _check.positive(vocab=vocab)
        return T5Encoder(vocab + 1, config, key=key), None
    assert text_dim is not None
    _check.positive(text_dim=text_dim)
    return None, Projection(text_dim, config.dim, bias=False, init=_fan_in, key=key)
