"""Documents of any length in rows of one length, several to a row.

Source: Krell et al., "Efficient Sequence Packing without Cross-contamination", arXiv:2107.02027, for the aim; the
first-fit rule with a bounded number of open rows is Johnson's, "Near-optimal bin packing algorithms", 1973.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int32, Int64, Integer


@dataclasses.dataclass(frozen=True, eq=False)
class Packing:
    """Pieces of documents and their places; the pieces of a row follow each other in the arrays.

    Attributes:
        length: of a row.
        first: the first piece of each row, and at the end the number of pieces: `(rows + 1,)`.
        document: each piece's document.
        start: where the piece starts in it.
        size: its length.
    """

    length: int
    first: Int64[np.ndarray, " rows_and_one"]
    document: Int64[np.ndarray, " pieces"]
    start: Int64[np.ndarray, " pieces"]
    size: Int64[np.ndarray, " pieces"]

    def __len__(self) -> int:
        """Rows."""
        return len(self.first) - 1

    @property
    def filled(self) -> float:
        """The share of places that hold a token."""
        return float(self.size.sum() / max(1, len(self) * self.length))


def pack(sizes: Integer[np.ndarray, " documents"], length: int, open_rows: int = 64) -> Packing:
    """Packs documents of some sizes into rows of a length.

    A document longer than a row is cut into whole rows and a rest. Every piece goes into the first row that is open and
    has room; when there is none a new row is opened, and if `open_rows` are open the fullest of them is closed. So the
    plan of the first documents does not depend on those that follow, up to the rows that are still open, and any row
    can be made at any time: see `fill`.

    Raises:
        ValueError: a size is negative, or `length` or `open_rows` is below 1.
    """
    if length < 1 or open_rows < 1 or (len(sizes) and int(sizes.min()) < 0):
        got = f"length={length}, open_rows={open_rows}, smallest size {int(sizes.min()) if len(sizes) else None}"
        raise ValueError(f"length and open_rows must be 1 or more, and sizes 0 or more: got {got}")
    closed: list[list[tuple[int, int, int]]] = []
    rows: list[list[tuple[int, int, int]]] = []
    room = np.zeros(0, np.int64)
    for document, size in enumerate(sizes.tolist()):
        for start in range(0, size, length):
            piece = (document, start, min(length, size - start))
            fits = np.flatnonzero(room >= piece[2])
            if not len(fits):
                if len(rows) == open_rows:
                    fullest = int(room.argmin())
                    closed.append(rows.pop(fullest))
                    room = np.delete(room, fullest)
                rows.append([])
                room = np.append(room, length)
                fits = [len(rows) - 1]
            rows[fits[0]].append(piece)
            room[fits[0]] -= piece[2]
    closed += rows
    pieces = np.array([piece for row in closed for piece in row], np.int64).reshape(-1, 3)
    return Packing(length, np.cumsum([0, *map(len, closed)]).astype(np.int64), *pieces.T)


def fill(
    packing: Packing, rows: Integer[np.ndarray, " n"], read: Callable[[int, int, int], np.ndarray]
) -> tuple[Int32[np.ndarray, "n length"], Int32[np.ndarray, "n length"], Int32[np.ndarray, "n length"]]:
    """Tokens, segments and positions of some rows.

    Segments count a row's pieces from 1, and are 0 in empty places, as are tokens there; positions count within
    the document.

    Args:
        packing: the plan.
        rows: which of its rows.
        read: the tokens of (document, start, size).
    """
    tokens, segments, positions = (np.zeros((len(rows), packing.length), np.int32) for _ in range(3))
    for place, row in enumerate(rows):
        at = 0
        for segment, piece in enumerate(range(packing.first[row], packing.first[row + 1]), 1):
            document, start, size = (int(column[piece]) for column in (packing.document, packing.start, packing.size))
            tokens[place, at : at + size] = read(document, start, size)
            segments[place, at : at + size] = segment
            positions[place, at : at + size] = np.arange(start, start + size)
            at += size
    return tokens, segments, positions
