"""Texts as conditions of models of image tokens: rows of ids that `end` fills up, read by an encoder."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from eqxgen.models.t5 import T5Encoder
from eqxgen.nn import Embedding, _check
from eqxgen.nn.linear import check_ids


class TextConditional(eqx.Module):
    """A model of image tokens with an encoder of texts. The empty text, `end` alone, is the null condition of guidance:
    training replaces texts by it, so that no parameter is of the null alone and attention has a token to read.

    Attributes:
        text: the encoder, whose last id is the end.
        embedding: of the codes and one id more.
        grid: rows and columns of the image tokens.
        context: capacity of a text in ids.
    """

    text: eqx.AbstractVar[T5Encoder]
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
        """Size of the texts' vocabulary, without the end."""
        return self.text.vocab - 1

    @property
    def end(self) -> int:
        """Id after the last token of a text."""
        return self.vocab

    @property
    def null_label(self) -> int:
        """Id that fills the empty text, the condition of an example without one."""
        return self.end

    def check_condition(self, text: _check.Ids) -> Int[Array, " text"]:
        """The text as an array.

        Raises:
            ValueError: it has not 1 to `context` ids in [0, vocab], of which `vocab` is the end; inside a compiled
                program ids out of the range give NaN logits instead.
        """
        text = check_ids(text, self.text.vocab, "text", "vocab + 1 end")
        _check.example(text, "text", name="text")
        if not 1 <= text.shape[0] <= self.context:
            raise ValueError(f"text must be of 1 to context={self.context} ids: got {text.shape[0]}")
        return text

    def read(
        self, text: _check.Ids, key: Any = None, inference: bool | None = None
    ) -> tuple[Float[Array, "text dim"], Bool[Array, "1 1 text"]]:
        """States of the text, and a mask of its tokens with the first end."""
        text = self.check_condition(text)
        ends = text == self.end
        real = jnp.cumsum(ends) - ends == 0
        return self.text(text, mask=real, key=key, inference=inference), real[None, None, :]
