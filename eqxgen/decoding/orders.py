"""Orders in which the tokens of a grid are placed, where they do not depend on the model."""

import math

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from eqxgen.nn import _check


def halton_order(rows: int, columns: int) -> Int[np.ndarray, " tokens"]:
    """Tokens of a grid, counted row by row, in the order in which the points of a Halton sequence first fall on them:
    base 2 gives the row, base 3 the column (Besnier et al. 2025, arXiv:2503.17076).

    Neighbours in the order are far apart in the grid, so that tokens placed together are nearly independent. The points
    are exact fractions, without rounding.

    Raises:
        ValueError: a side is not a positive integer.
    """
    _check.positive(rows=rows, columns=columns)
    # Boxes of half a cell: each cell holds a whole one, and a period of the sequence has a point in each box.
    digits = [math.ceil(math.log(2 * side, base)) for side, base in ((rows, 2), (columns, 3))]
    points = np.arange(1, 2 ** digits[0] * 3 ** digits[1] + 1)
    cells = _scaled(points, 2, rows) * columns + _scaled(points, 3, columns)
    return cells[np.sort(np.unique(cells, return_index=True)[1])]


def _scaled(points: np.ndarray, base: int, side: int) -> np.ndarray:
    """⌊side · x⌋, where x mirrors a point's digits at the decimal point."""
    mirrored, whole = np.zeros_like(points), 1
    while points.any():
        points, digit = np.divmod(points, base)
        mirrored, whole = mirrored * base + digit, whole * base
    return mirrored * side // whole


def check_grid(tokens: int, grid: tuple[int, int] | None) -> None:
    """Raises `ValueError` unless a grid is two sides with as many cells as there are tokens."""
    if grid is None:
        return
    rows, columns = _check.pair("grid", grid, "rows", "columns")
    if rows * columns != tokens:
        raise ValueError(f"grid must have a cell for each of {tokens} tokens: got {rows} x {columns}")


def halton_places(tokens: int, grid: tuple[int, int] | None) -> Int[Array, " tokens"]:
    """The place of each token in the Halton order of its grid.

    Args:
        grid: rows and columns; by default a square.

    Raises:
        ValueError: the grid does not have as many cells as there are tokens, or must be given.
    """
    side = math.isqrt(tokens)
    if grid is None and side * side != tokens:
        raise ValueError(f"grid must be given for decode.order=halton, as {tokens} tokens are no square: got None")
    check_grid(tokens, grid)
    rows, columns = (side, side) if grid is None else grid
    return jnp.argsort(jnp.asarray(halton_order(rows, columns)))


def rolled(places: Int[Array, " tokens"], *, key: PRNGKeyArray) -> Int[Array, " tokens"]:
    """The places after a roll of the order by a random offset, as the published sampler's, one for each sample."""
    return (places + jr.randint(key, (), 0, len(places))) % len(places)
