"""A grid of samples, and its PNG, JPEG or WebP."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8

from ..._files import write_atomically

_GAP, _GAP_VALUE = 1, 128
_SIDE = 512

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Format of a picture by the suffix of its file."""
_OPTIONS: dict[str, dict[str, Any]] = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
_LONGEST = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}  # pixels of a side


def image_grid(
    images: UInt8[np.ndarray, "n height width channels"], columns: int
) -> UInt8[np.ndarray, "grid_height grid_width channels"]:
    """The images row by row, `columns` to a row, one grey pixel between neighbours; the last row is filled up with
    grey.

    Raises:
        ValueError: there is no image, or `columns < 1`.
    """
    if columns < 1:
        raise ValueError(f"columns must be 1 or more: got {columns}")
    if len(images) == 0:
        raise ValueError(f"images must hold at least one image: got shape {images.shape}")
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), _GAP_VALUE, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        grid[top : top + height, left : left + width] = image
    return grid


def to_uint8(images: Num[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Images in [-1, 1] as `0 ... 255` for a screen; values outside are clipped.

    Raises:
        ValueError: a value is NaN.
    """
    if np.isnan(images).any():
        raise ValueError(
            f"images must be numbers in [-1, 1]: got {int(np.isnan(images).sum())} NaN among {images.size} values"
        )
    return np.rint((np.clip(images, -1, 1).astype(np.float32) + 1) * np.float32(127.5)).astype(np.uint8)


def save_picture(
    path: str | os.PathLike, array: UInt8[np.ndarray, "height width channels"], *, scale: int | None = None
) -> None:
    """Writes grey (1 channel) or RGB (3) pixels as the picture that the suffix names, whole or not at all: .png, .webp
    (both without loss), .jpg or .jpeg (of quality 95).

    Each pixel becomes a square of `scale` pixels; by default the smallest that brings the longer side to 512, so that a
    person can see 8x8 images.

    Raises:
        ValueError: the suffix is another, the number of channels is not 1 or 3, a side is empty or longer than the
            format takes, or `scale < 1`.
        UserError: the file cannot be written.
    """
    height, width, channels = array.shape
    if channels not in (1, 3) or 0 in array.shape:
        raise ValueError(f"array must be (height, width, channels) with 1 or 3 channels: got {array.shape}")
    if scale is not None and scale < 1:
        raise ValueError(f"scale must be 1 or more: got {scale}")
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"path must end in {', '.join(FORMATS)}: got {os.fspath(path)!r}")
    factor = scale or -(-_SIDE // max(height, width))
    if (longest := factor * max(height, width)) > _LONGEST[kind]:
        raise ValueError(f"a side of a {kind} picture must be at most {_LONGEST[kind]:,} pixels: got {longest:,}")
    from PIL import Image

    pixels = array.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, kind, **_OPTIONS[kind])
    write_atomically(Path(path), lambda part: part.write_bytes(buffer.getvalue()))
