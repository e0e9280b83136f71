"""Nearest neighbours in blocks, whose memory does not grow with the number of rows."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

ROWS, COLUMNS = 1024, 4096
_ROUNDING = 64 * np.finfo(np.float64).eps  # of a squared distance by products, of the squared norms


def nearest(
    points: Float[np.ndarray, "n dim"], among: Float[np.ndarray, "m dim"], k: int = 1, *, leave_out_own: bool = False
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Euclidean distances to the k nearest rows, in order, and their numbers, in float64.

    Neighbours are found by a matrix product for each pair of blocks, and their distances are taken anew from the
    differences, so that a copy is at 0.

    Args:
        leave_out_own: row i of `among` is no neighbour of point i, for a set against itself.

    Raises:
        ValueError: k is not from 1 to the number of rows to choose from.
    """
    most = len(among) - leave_out_own
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to {most}, the rows to choose from: got {k}")
    centre = _centre(among)
    found, numbers = np.empty((len(points), k)), np.empty((len(points), k), int)
    for start, rows in _blocks(points, centre, ROWS):
        best, places = np.full((len(rows), 0), np.inf), np.zeros((len(rows), 0), int)
        for first, columns in _blocks(among, centre, COLUMNS):
            squares = _squares(rows, columns)
            if leave_out_own:
                own = np.arange(start, start + len(rows)) - first
                inside = (own >= 0) & (own < len(columns))
                squares[np.flatnonzero(inside), own[inside]] = np.inf
            here = np.broadcast_to(np.arange(first, first + len(columns)), squares.shape)
            best, places = _smallest(np.hstack([best, squares]), np.hstack([places, here]), k)
        exact = np.stack([_exact(rows, among[place] - centre) for place in places.T], axis=1)
        order = np.argsort(exact, axis=1, kind="stable")
        found[start : start + len(rows)] = np.sqrt(np.take_along_axis(exact, order, axis=1))
        numbers[start : start + len(rows)] = np.take_along_axis(places, order, axis=1)
    return found, numbers


def within(
    centres: Float[np.ndarray, "n dim"],
    radii: Float[np.ndarray, " n"],
    points: Float[np.ndarray, "m dim"],
    *,
    inclusive: bool,
) -> Iterator[tuple[slice, Bool[np.ndarray, "rows columns"]]]:
    """Blocks of the balls that hold each point: (places of the points, (points, centres)).

    Args:
        inclusive: a point on a ball's surface is in it.
    """
    origin = _centre(centres)
    limit = radii**2
    for start, rows in _blocks(points, origin, ROWS):
        held = np.empty((len(rows), len(centres)), bool)
        for first, columns in _blocks(centres, origin, COLUMNS):
            most = limit[first : first + len(columns)]
            squares = _squares(rows, columns)
            inside = squares <= most
            scale = np.sum(rows**2, axis=1)[:, None] + np.sum(columns**2, axis=1)
            i, j = np.nonzero(np.abs(squares - most) <= _ROUNDING * rows.shape[1] * scale)
            for part in range(0, len(i), COLUMNS):
                a, b = i[part : part + COLUMNS], j[part : part + COLUMNS]
                exact = np.sqrt(_exact(rows[a], columns[b]))
                own = radii[first + b]
                inside[a, b] = exact <= own if inclusive else exact < own
            held[:, first : first + len(columns)] = inside
        yield slice(start, start + len(rows)), held


def _centre(rows: np.ndarray) -> Float[np.ndarray, " dim"]:
    return np.asarray(np.mean(rows, axis=0, dtype=np.float64))


def _blocks(
    rows: Float[np.ndarray, "n dim"], centre: Float[np.ndarray, " dim"], size: int
) -> Iterator[tuple[int, Float[np.ndarray, "block dim"]]]:
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size] - centre


def _squares(rows: np.ndarray, columns: np.ndarray) -> Float[np.ndarray, "n m"]:
    squares = rows @ columns.T
    squares *= -2
    squares += np.sum(rows**2, axis=1)[:, None]
    squares += np.sum(columns**2, axis=1)
    return squares


def _exact(rows: np.ndarray, others: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.sum((rows - others) ** 2, axis=1)


def _smallest(values: np.ndarray, places: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if values.shape[1] <= k:
        return values, places
    order = np.argpartition(values, k - 1, axis=1)[:, :k]
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)
