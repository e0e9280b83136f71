"""Learned positions."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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


def resized_positions(
    table: Float[Array, "rows columns dim"], rows: int, columns: int, *, antialias: bool = False
) -> Float[Array, "new_rows new_columns dim"]:
    """A table of positions for another grid, by bicubic interpolation in float32, as torch's `interpolate` with
    `align_corners=False` (DINO, Caron et al. 2021).

    Where we differ from `jax.image.resize`: torch's cubic has the coefficient -0.75 and repeats the border; -0.5 and no
    border with `antialias`.

    Args:
        table: of the old grid.
        rows, columns: of the new grid.
        antialias: widens the cubic where the new grid is smaller.

    Raises:
        ValueError: a number is not a positive integer.
    """
    _check.positive(rows=rows, columns=columns)
    if (rows, columns) == table.shape[:2]:
        return table
    down, across = (
        jnp.asarray(_bicubic(old, new, antialias)) for old, new in zip(table.shape[:2], (rows, columns), strict=True)
    )
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    wide = jnp.einsum("rh,hwd->rwd", down, table.astype(jnp.float32), **exact)
    return jnp.einsum("cw,rwd->rcd", across, wide, **exact).astype(table.dtype)


@functools.cache
def _bicubic(old: int, new: int, antialias: bool) -> np.ndarray:
    """Weights (new, old) of one axis."""
    step = old / new
    centres = (np.arange(new) + 0.5) * step - 0.5
    stretch = max(step, 1.0) if antialias else 1.0
    reach = int(np.ceil(2 * stretch)) + 1
    places = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 1)[None]
    weights = _cubic((places - centres[:, None]) / stretch, -0.5 if antialias else -0.75)
    if antialias:
        weights = np.where((places >= 0) & (places < old), weights, 0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], np.clip(places, 0, old - 1)), weights)
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (1981, equation 15), with its free coefficient."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
