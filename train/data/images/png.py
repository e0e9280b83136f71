"""Check that a PNG is whole: Pillow shows one whose last rows are missing without an error.

Source: "Portable Network Graphics (PNG) Specification", W3C, sections 5 (chunks), 8 (interlacing), 10 (compression).
"""

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first column, first row, column step, row step of each pass.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def check_png(data: bytes) -> None:
    """Checks every chunk's CRC up to IEND, and that the pixel data has every row.

    Raises:
        ValueError: with what is wrong.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("no PNG signature")
    position, header, packed, ended = len(_SIGNATURE), b"", [], False
    while not ended:
        length = int.from_bytes(data[position : position + 4], "big")
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        crc = data[position + 8 + length : position + 12 + length]
        if len(crc) != 4:
            raise ValueError("cut short before its IEND chunk")
        if zlib.crc32(kind + body) != int.from_bytes(crc, "big"):
            raise ValueError(f"wrong CRC in chunk {kind!r}")
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed.append(body)
        ended = kind == b"IEND"
        position += 12 + length
    expected = _pixel_bytes(header)
    try:
        unpacker = zlib.decompressobj()
        found = len(unpacker.decompress(b"".join(packed), expected + 1))
    except zlib.error as error:
        raise ValueError(f"damaged pixel data: {error}") from error
    if found < expected:
        raise ValueError(f"rows are missing: {found:,} of {expected:,} bytes of pixel data")


def _pixel_bytes(header: bytes) -> int:
    """Unpacked bytes of the pixel data that the IHDR chunk announces: per row one filter byte, then the pixels."""
    if len(header) != 13 or header[9] not in _CHANNELS:
        raise ValueError("damaged header")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _CHANNELS[header[9]]
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    total = 0
    for column, row, column_step, row_step in passes:
        columns = max(0, -(-(width - column) // column_step))
        rows = max(0, -(-(height - row) // row_step))
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total
