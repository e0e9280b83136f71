"""Block sizes of the kernels by head_dim, as the compiler's schedules rank them (`bench/results/tpu`).

The generations of TPU have the same vector units a matrix unit, and one row serves them all.
"""

from typing import NamedTuple


class Blocks(NamedTuple):
    """Queries and keys of a tile, keys of a part of it, and queries of a group.

    A group's softmax over one part runs beside the product of the next.
    """

    q: int
    kv: int
    part: int
    rows: int


# The widest head_dim of each row, twice as wide in float32.
FORWARD = {
    128: Blocks(512, 1024, 512, 256),
    256: Blocks(512, 1024, 512, 256),
    512: Blocks(256, 512, 256, 256),
    1024: Blocks(256, 256, 128, 256),
}
BACKWARD = {
    256: Blocks(512, 512, 512, 512),
    512: Blocks(256, 512, 256, 256),
    1024: Blocks(128, 256, 128, 128),
}


SUM_BYTES = 32 << 20
ROOMY = ("v5", "v6", "v7", "7x")


def forward(widest: int) -> Blocks:
    """The row of the forward kernel."""
    return _row(FORWARD, widest)


def backward(widest: int) -> Blocks:
    """The row of the backward kernels."""
    return _row(BACKWARD, widest)


def sum_bytes(kind: str) -> int:
    """Bytes of vector memory for the query's gradient: v4 has 16 MiB in all, later chips at least 64."""
    return SUM_BYTES if any(name in kind for name in ROOMY) else SUM_BYTES // 16


def _row(table: dict[int, Blocks], widest: int) -> Blocks:
    return next(row for most, row in table.items() if widest <= most)
