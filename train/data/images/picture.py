"""One picture file as an array, or a clear refusal."""

import functools
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, UInt8

from ..._errors import DataError
from ..files.contents import read_bytes
from .png import check_png

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Pillow's formats of pixels by suffix; none that starts another program (EPS) or is a film.
_FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb"),
    "QOI": (".qoi",),
}
SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
_MAX_FILE, _MAX_PIXELS = 256 * 2**20, 2**26
_GREY, _WITH_ALPHA = ("1", "L", "LA"), ("LA", "PA", "RGBA", "La", "RGBa")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
_HINT = "replace it, take it out, or pass --data.skip-broken"
REPLACE = "give another file"
"""Hint of a broken picture that a flag names."""
_BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, NotImplementedError),
    *(struct.error, zlib.error),
)


def read_picture(
    path: Path, image_size: int | None, *, hint: str = _HINT, exact: bool = False
) -> UInt8[np.ndarray, "height width channels"]:
    """The only frame of a picture, upright, 1 channel if it is grey and otherwise 3.

    Transparent pixels become white, 16 bits a channel become 8. Of the pictures that a camera keeps in one JPEG (MPO)
    the first is taken. With `image_size` the shorter side is resized to it and the centre is cut out. `hint` ends the
    message of a broken picture. `exact` is for masks, whose values are names: none is rounded or laid on white.

    Raises:
        DataError: the file cannot be read or decoded, is cut short, has over 2**26 pixels, several frames, or more than
            16 bits a channel; with `exact` also where it has 16 bits, or is not opaque.
    """
    from PIL import Image, ImageOps

    data = read_bytes(path, _MAX_FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns below twice its limit, which lets a 200-byte file fill 500 MB.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=_known_formats())
            _check(path, picture)
            if exact:
                _check_exact(path, picture)
            if picture.format == "PNG":
                check_png(data)
            return _pixels(ImageOps.exif_transpose(picture), image_size)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        hint = "make the picture smaller or take it out"
        raise DataError(path, f"at most {_MAX_PIXELS:,} pixels", str(error), hint) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(path, "a whole picture", f"a file that begins with {data[:12]!r}", hint) from error
    except _BROKEN as error:
        raise DataError(path, "a whole picture", str(error) or type(error).__name__, hint) from error


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """A picture of black and white as a mask: True where it is white.

    Raises:
        DataError: as `read_picture`; or a pixel is neither black nor white, or none is white.
    """
    pixels = read_picture(path, None, hint=REPLACE, exact=True)
    other = ~(np.all(pixels == 0, -1) | np.all(pixels == 255, -1))
    if other.any():
        got = f"{int(other.sum()):,} of {other.size:,} pixels of other values"
        raise DataError(path, "a mask of black and white pixels alone", got, "save it as PNG, without soft edges")
    mask = pixels[..., 0] == 255
    if not mask.any():
        raise DataError(path, "a mask with white pixels", "black ones alone", "white is the part that changes")
    return mask


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Those of our formats that this build of Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _check(path: Path, picture: "Picture") -> None:
    """Refuses what one 8-bit picture cannot be made of, by the header alone."""
    from PIL import Image

    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height}")
    frames = getattr(picture, "n_frames", 1)
    if frames != 1 and picture.format != "MPO":
        raise DataError(path, "one still picture", f"{frames} frames", "save a single frame")
    if picture.mode == "F" or (picture.mode == "I" and picture.format not in ("PNG", "PPM")):
        hint = "convert it to a picture of 8 or 16 bits"
        raise DataError(path, "at most 16 bits a channel", f"mode {picture.mode}", hint)


def _check_exact(path: Path, picture: "Picture") -> None:
    """Refuses a mask whose values reading would change."""
    if picture.mode in (*_SIXTEEN, "I"):
        hint = "save it as an 8-bit PNG of the numbers of its classes"
        raise DataError(path, "a mask of 8 bits a channel", f"mode {picture.mode}", hint)
    clear = picture.mode in _WITH_ALPHA or "transparency" in picture.info
    if clear and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(path, "an opaque mask", "transparent pixels", "save it without transparency")


def _pixels(picture: "Picture", image_size: int | None) -> np.ndarray:
    """`(height, width, channels)` of a picture laid on white, resized and cut."""
    from PIL import Image

    if picture.mode in (*_SIXTEEN, "I"):
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
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
