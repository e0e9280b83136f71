"""Animated WebP of the sample grids of a run, and of other pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

FILM = "denoising.webp"
"""Film of the denoising, in the folder of a run."""
SIDE = 512
"""Pixels that the longer side of a written animation has at least."""


def animate(grids: Path, out: Path, *, millis: int = 350, last: int = 2500) -> Path | None:
    """Writes the PNGs of a folder, in the order of their names, as one animated WebP; gives its path, or None of fewer
    than two.

    Args:
        grids: folder of `step-*.png`, all of the size of the last one, or left out.
        out: file to write.
        millis: milliseconds of each.
        last: milliseconds of the last.
    """
    from PIL import Image

    frames = []
    for path in sorted(grids.glob("step-*.png")):
        with Image.open(path) as picture:
            frames.append(picture.convert("RGB"))
    frames = [frame for frame in frames if frame.size == frames[-1].size]
    if len(frames) < 2:
        return None
    _write(frames, out, millis, last, lossless=True)
    return out


def write_animation(
    frames: Sequence[UInt8[np.ndarray, "height width channels"]], out: Path, *, millis: int = 80, last: int = 2500
) -> None:
    """Writes pictures of one size as an animated WebP, enlarged by a whole number to at least 512 pixels along a side.

    Args:
        frames: with 1 or 3 channels.
        out: file to write.
        millis: milliseconds of each.
        last: milliseconds of the last.
    """
    from PIL import Image

    height, width, _ = frames[0].shape
    scale = max(1, -(-SIDE // max(height, width)))
    pictures = [
        Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame).convert("RGB") for frame in frames
    ]
    size = (width * scale, height * scale)
    _write([picture.resize(size, Image.Resampling.NEAREST) for picture in pictures], out, millis, last, quality=80)


def _write(frames: list[Any], out: Path, millis: int, last: int, **options: Any) -> None:
    durations = [millis] * (len(frames) - 1) + [last]
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
