"""Pictures of images with the classes of their pixels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8

COLOURS = np.array(
    [
        *([230, 60, 40], [30, 120, 200], [240, 190, 20], [20, 160, 110]),
        *([190, 90, 190], [90, 200, 230], [220, 120, 20], [120, 120, 120]),
    ],
    np.uint8,
)
"""Of the classes, again from the first after the last."""
GAP = 4
"""Pixels between panels."""
SIDE = 512
"""Pixels of the longer side of a panel at most."""

Colour = UInt8[np.ndarray, "height width 3"]
Labels = Integer[np.ndarray, "height width"]


def coloured(labels: Labels) -> Colour:
    """Each class as a colour."""
    return COLOURS[labels % len(COLOURS)]


def overlaid(image: UInt8[np.ndarray, "height width channels"], labels: Labels, share: float = 0.5) -> Colour:
    """The image with a tint of each class but the most frequent one."""
    mixed = (1 - share) * image.astype(np.float32) + share * coloured(labels)
    plain = labels == np.argmax(np.bincount(labels.ravel()))
    return np.where(plain[..., None], image, np.rint(mixed)).astype(np.uint8)


def mistakes(image: UInt8[np.ndarray, "height width channels"], labels: Labels, guesses: Labels) -> Colour:
    """The image in grey, darker, with the guessed class's colour where it is wrong."""
    grey = np.broadcast_to(np.mean(image, axis=-1, keepdims=True) / 2, (*labels.shape, 3))
    return np.where((labels != guesses)[..., None], coloured(guesses), np.rint(grey)).astype(np.uint8)


def sheet(rows: Sequence[Sequence[UInt8[np.ndarray, "..."]]]) -> Colour:
    """Rows of panels, each no larger than `SIDE`, on white."""
    from PIL import Image

    shown = []
    for row in rows:
        panels = [Image.fromarray(np.broadcast_to(panel, (*panel.shape[:2], 3)).astype(np.uint8)) for panel in row]
        for panel in panels:
            panel.thumbnail((SIDE, SIDE))
        shown.append(panels)
    height = sum(max(panel.height for panel in row) + GAP for row in shown) - GAP
    canvas = Image.new("RGB", (max(sum(panel.width + GAP for panel in row) for row in shown) - GAP, height), "white")
    top = 0
    for row in shown:
        left = 0
        for panel in row:
            canvas.paste(panel, (left, top))
            left += panel.width + GAP
        top += max(panel.height for panel in row) + GAP
    return np.asarray(canvas)
