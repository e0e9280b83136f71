"""The format of MNIST's files: gzip over a big-endian header and plain bytes.

Source: "The MNIST database of handwritten digits", Y. LeCun, C. Cortes, C. J. C. Burges, section "File formats".
"""

import math
import os
import zlib

import numpy as np
from jaxtyping import UInt8

from ..._errors import DataError
from ..files.contents import MAX_BYTES

_UBYTE = 0x08


def read_idx(path: str | os.PathLike, data: bytes, rank: int, limit: int = MAX_BYTES) -> UInt8[np.ndarray, "..."]:
    """The array in a gzip-compressed IDX file of unsigned bytes.

    Args:
        path: named in errors.
        data: the compressed bytes.
        rank: dimensions it must have: 3 for images `(n, height, width)`, 1 for labels `(n,)`.
        limit: most bytes to unpack.

    Raises:
        DataError: the gzip stream is damaged or too large, the magic number is another, or the dimensions do not match
            the bytes.
    """
    content = _gunzip(path, data, limit)
    header = 4 + 4 * rank
    magic = _UBYTE << 8 | rank
    found = int.from_bytes(content[:4], "big")
    if len(content) < header or found != magic:
        raise DataError(
            path,
            f"IDX magic number {magic:#x}",
            f"{found:#x} in {len(content):,} bytes",
            "this is another file; fetch it again",
        )
    shape = tuple(int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank))
    if math.prod(shape) != len(content) - header:
        got = f"{len(content) - header:,}"
        raise DataError(
            path,
            f"{math.prod(shape):,} bytes for its dimensions {shape}",
            got,
            "it is truncated or altered; fetch it again",
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _gunzip(path: str | os.PathLike, data: bytes, limit: int) -> bytes:
    """One gzip member, no more than `limit` bytes unpacked, its checksum verified, nothing after it."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise DataError(path, "a gzip file", str(error), "it is damaged; fetch it again") from error
    if len(content) > limit:
        raise DataError(
            path,
            f"at most {limit:,} bytes unpacked",
            "more",
            "this is no data set, it would fill the memory; fetch it again",
        )
    if not unpacker.eof or unpacker.unused_data:
        got = "bytes after its end" if unpacker.eof else "a gzip file cut short"
        raise DataError(path, "one whole gzip file", got, "it is damaged; fetch it again")
    return content
