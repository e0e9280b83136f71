"""Numbers of a sampler as arrays, so that others run the same compiled program, and the check of its tokens."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

NO_TOKEN = -1
"""In place of a token: one that could not be drawn, inside a compiled program, or any after the end of a text."""


def number(value: float | int | None, neutral: float | int | None = None) -> Float[Array, ""] | None:
    """A float32 number; None, which leaves its rule out of the program, for None and for the neutral value."""
    return None if value is None or value == neutral else jnp.asarray(value, jnp.float32)


def bucket(size: int, least: int) -> int:
    """The least of `least`, 2 `least`, 4 `least`, ... that holds the size: one program for every size up to it."""
    return max(least, 1 << (size - 1).bit_length())


def check_drawn(ids: Int[Array | np.ndarray, "..."]) -> None:
    """The error of tokens that could not be drawn, the same of every decoder. Inside a compiled program, where values
    are not known, they stay `NO_TOKEN`.

    Raises:
        FloatingPointError: a token is `NO_TOKEN`.
    """
    if not isinstance(ids, Tracer) and (np.asarray(ids) < 0).any():
        raise FloatingPointError("the model's logits are not numbers: its weights, or a prompt's ids, are damaged")
