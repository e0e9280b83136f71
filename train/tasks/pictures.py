"""Pictures that are given to an edit, of the size and channels of a run's images. Imports nothing heavy."""

from pathlib import Path
from typing import Any

from .._errors import UserError
from ..engine.recipes import Finished


def picture_of(run: Finished, flag: str, path: str) -> Any:
    """A picture of the run's size as an image in [-1, 1]; a grey one has three equal channels where the run has three.

    Raises:
        UserError: it cannot be read, or is of another size or in colour.
    """
    from ..data.images.picture import REPLACE, read_picture

    pixels = read_picture(Path(path), None, hint=REPLACE)
    height, width, channels = run.facts.shape
    if pixels.shape[:2] != (height, width) or pixels.shape[2] > channels:
        wanted = f"{height} x {width} in {_kind(channels)}"
        raise UserError(f"--{flag} {path}: must be {wanted}, as the run's images: got {_told(pixels)}")
    return _scaled(pixels, channels)


def small_of(run: Finished, path: str) -> Any:
    """A small picture, whose sides times a whole number are those of the run, as an image in [-1, 1]; channels as in
    `picture_of`.

    Raises:
        UserError: it cannot be read, or is of another size or in colour.
    """
    from eqxgen.diffusion.editing import factor_of

    from ..data.images.picture import REPLACE, read_picture

    pixels = read_picture(Path(path), None, hint=REPLACE)
    height, width, channels = run.facts.shape
    try:
        factor_of(pixels.shape[:2], (height, width))
    except ValueError as error:
        raise UserError(f"--upscale {path}: {error}") from None
    if pixels.shape[2] > channels:
        raise UserError(f"--upscale {path}: must be in {_kind(channels)}, as the run's images: got {_told(pixels)}")
    return _scaled(pixels, channels)


def _scaled(pixels: Any, channels: int) -> Any:
    import numpy as np

    whole = np.broadcast_to(pixels, (*pixels.shape[:2], channels))
    return whole.astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def _kind(channels: int) -> str:
    return "grey" if channels == 1 else "colour"


def _told(pixels: Any) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]} in {_kind(pixels.shape[2])}"


def mask_of(run: Finished, path: str) -> Any:
    """A mask of the run's size: True where it is white.

    Raises:
        UserError: it cannot be read, is of another size, or is not of black and white.
    """
    from ..data.images.picture import read_mask

    mask = read_mask(Path(path))
    if mask.shape != run.facts.shape[:2]:
        height, width, _ = run.facts.shape
        got = f"{mask.shape[0]} x {mask.shape[1]}"
        raise UserError(f"--mask {path}: must be {height} x {width}, as the run's images: got {got}")
    return mask
