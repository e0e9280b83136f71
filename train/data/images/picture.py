"""One picture file as an array, or a clear refusal."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from ..errors import DataError
from ..files.whole import read_bytes
from .png import check_png

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_MAX_FILE, _MAX_PIXELS = 256 * 2**20, 2**26
_GREY, _WITH_ALPHA = ("1", "L", "LA"), ("LA", "PA", "RGBA", "La", "RGBa")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def read_picture(path: Path, image_size: int | None) -> UInt8[np.ndarray, "height width channels"]:
    """The first and only frame, upright, 1 channel if it is grey and otherwise 3.

    What is transparent becomes white. With `image_size` the shorter side is resized to it and the centre is cut out.

    Raises:
        DataError: the file cannot be read or decoded, is cut short, has over 2**26 pixels, several frames, or more than
            8 bits a channel.
    """
    from PIL import Image, ImageOps

    data = read_bytes(path, _MAX_FILE)
    broken = (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        TypeError,
        OverflowError,
        struct.error,
        zlib.error,
    )
    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns below twice its limit, which lets a 200-byte file fill 500 MB.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = picture.size
            if width * height > _MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height}")
            if getattr(picture, "n_frames", 1) != 1:
                raise DataError(
                    path, "one still picture", f"{getattr(picture, 'n_frames', 1)} frames", "save a single frame"
                )
            if picture.mode in _DEEP:
                raise DataError(path, "8 bits a channel", f"mode {picture.mode}", "convert it to an 8-bit picture")
            if picture.format == "PNG":
                check_png(data)
            return _pixels(ImageOps.exif_transpose(picture), image_size)
    except DataError:
        raise
    except too_large as error:
        raise DataError(
            path, f"at most {_MAX_PIXELS:,} pixels", str(error), "make the picture smaller or take it out"
        ) from error
    except broken as error:
        raise DataError(
            path, "a whole PNG, JPEG, BMP or WebP picture", str(error), "replace it or take it out"
        ) from error


def _pixels(picture: "Picture", image_size: int | None) -> np.ndarray:
    """`(height, width, channels)` after laying the picture on white, resizing and cutting."""
    from PIL import Image

    mode = "L" if picture.mode in _GREY else "RGB"
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        solid = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid)
    picture = picture.convert(mode)
    if image_size is not None and picture.size != (image_size, image_size):
        width, height = picture.size
        scale = image_size / min(width, height)
        width, height = max(image_size, round(width * scale)), max(image_size, round(height * scale))
        left, top = (width - image_size) // 2, (height - image_size) // 2
        picture = picture.resize((width, height), Image.Resampling.LANCZOS).crop(
            (left, top, left + image_size, top + image_size)
        )
    pixels = np.asarray(picture)
    return pixels[..., None] if mode == "L" else pixels
