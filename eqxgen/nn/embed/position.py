"""Learned positions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Embedding, Initializer


class LearnedPositions(eqx.Module):
    """A learned vector for each position, added to the token there (Gehring et al. 2017; GPT-2, BERT, ViT).

    Args:
        length: number of positions.
        dim: width of a token, kept.
        init: initializer of the vectors; by default normal with deviation 0.02.
    """

    table: Embedding

    def __init__(
        self,
        length: int,
        dim: int,
        *,
        init: Initializer = jax.nn.initializers.normal(0.02),  # noqa: B008
        key: PRNGKeyArray,
    ):
        self.table = Embedding(length, dim, init=init, key=key)

    def __call__(
        self, x: Float[Array, "seq dim"], start: int | Int[Array, ""] = 0, *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "seq dim"]:
        """The tokens at positions `start`, `start + 1`, ...; with a cache, `start` is its count.

        Raises:
            ValueError: x is not one sequence of `dim`, or a position is not in [0, length). Inside a compiled program,
                where `start` is not known, such tokens are NaN.
        """
        _check.example(x, "seq", dim=self.table.dim)
        if x.shape[0] > self.table.vocab:
            raise ValueError(f"x must have at most length={self.table.vocab} tokens: got {x.shape[0]}")
        if not isinstance(start, Tracer) and not 0 <= int(start) <= self.table.vocab - x.shape[0]:
            raise ValueError(
                f"start must leave room for {x.shape[0]} tokens among length={self.table.vocab} positions: got "
                f"{int(start)}"
            )
        return x + self.table(start + jnp.arange(x.shape[0])).astype(x.dtype)
