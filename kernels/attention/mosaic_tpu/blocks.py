"""Block sizes of the kernels by head_dim, as the compiler's schedules rank them (`bench/results/tpu`).

The generations of TPU have the same vector units a matrix unit, and one row serves them all.
"""

from typing import NamedTuple


class Blocks(NamedTuple):
    """Queries and keys of a tile, keys and queries of a piece of it, and queries whose softmax is taken at once.

    That softmax runs beside the product of the next. A tile that needs the mask is computed piece by piece.
    """

    q: int
    kv: int
    part: int
    group: int
    rows: int


# The widest head_dim of each row, twice as wide in float32. With a number for each pair or block of pairs, by a bias, a
# dense mask or a pattern, the tiles of `PAIRED` are smaller; so they are in the backward pass of chips without room.
FORWARD = {
    256: Blocks(1024, 1024, 512, 512, 256),
    512: Blocks(256, 512, 256, 256, 256),
    1024: Blocks(256, 256, 128, 256, 256),
}
PAIRED_FORWARD = FORWARD | {256: Blocks(512, 1024, 512, 512, 256)}
# `rows` of the backward kernels: those of one product where no mask is needed.
BACKWARD = {
    256: Blocks(1024, 2048, 512, 512, 1024),
    512: Blocks(256, 512, 256, 256, 256),
    1024: Blocks(128, 256, 128, 128, 128),
}
PAIRED_BACKWARD = BACKWARD | {256: Blocks(512, 512, 512, 512, 512)}
# Without a mask no tile is computed in part, and the larger ones have half of the steps.
UNMASKED_BACKWARD = BACKWARD | {256: Blocks(2048, 2048, 512, 1024, 1024)}
# With a number for each pair, on chips with room.
WIDE_PAIRED_BACKWARD = BACKWARD | {256: Blocks(1024, 1024, 512, 512, 512)}

# A call of at most so many queries and keys is one tile a head (`short`). Of the heads of a step: their number, logits,
# and bytes of their blocks, which are held twice; v4 has 16 MiB of vector memory in all.
LONGEST = 512
MOST_HEADS, MOST_PAIRS, MOST_BYTES = 8, 1 << 19, 6 << 20

# Bytes of vector memory for the gradient of the query, and chips with at least 64 MiB of it.
SUM_BYTES = 32 << 20
LATER = ("v5", "v6", "v7", "7x")


def forward(widest: int, *, narrow: bool) -> Blocks:
    """The row of the forward kernel; `narrow` as in `Extras`."""
    return _row(FORWARD if narrow else PAIRED_FORWARD, widest)


def backward(widest: int, kind: str, *, plain: bool, masked: bool) -> Blocks:
    """The row of the backward kernels; `plain` as in `Extras`, `kind` as in `Target`."""
    if not _later(kind):
        return _row(PAIRED_BACKWARD, widest)
    return _row((BACKWARD if masked else UNMASKED_BACKWARD) if plain else WIDE_PAIRED_BACKWARD, widest)


def sum_bytes(kind: str) -> int:
    """Bytes of vector memory for the query's gradient: v4 has 16 MiB in all."""
    return SUM_BYTES if _later(kind) else SUM_BYTES // 16


def _later(kind: str) -> bool:
    return any(name in kind for name in LATER)


def _row(table: dict[int, Blocks], widest: int) -> Blocks:
    return next(row for most, row in table.items() if widest <= most)
