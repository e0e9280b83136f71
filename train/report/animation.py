"""Animated WebP of the sample grids of a run."""

from pathlib import Path


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
    durations = [millis] * (len(frames) - 1) + [last]
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True)
    return out
