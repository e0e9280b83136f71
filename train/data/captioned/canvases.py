"""Canvases of scenes: coloured 8x8 digits, black elsewhere."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from ..images.dataset import Captions, Dataset
from .scenes import KINDS, SIDE, Scene, drawn

CELL = 8
"""Pixels along a side of a cell."""
RGB = {
    "white": (255, 255, 255),
    "red": (255, 60, 60),
    "green": (60, 230, 60),
    "blue": (80, 120, 255),
    "yellow": (255, 235, 60),
}
TRAIN, TEST = 60_000, 1_000
"""Canvases to train on; held-out ones of scenes that are in training, and as many of scenes that are not."""


def captioned_digits(source: Dataset, seed: int = 0) -> Dataset:
    """Canvases of `train.data.captioned.scenes` with their captions; classes are the kinds of scene.

    Training canvases have digits of the training part. Held-out canvases have held-out digits: first scenes that are
    in training, then as many that are not.

    Args:
        source: 8x8 digits.
        seed: of all draws.
    """
    parts = [
        (TRAIN, False, source.train_images, source.train_labels),
        (TEST, False, source.test_images, source.test_labels),
        (TEST, True, source.test_images, source.test_labels),
    ]
    made = []
    for part, (count, held_out, images, labels) in enumerate(parts):
        found = drawn(count, 2 * (len(parts) * seed + part), held_out=held_out)
        grey = np.asarray(images)[..., 0].astype(np.float32) / (source.levels - 1)
        canvases = draw([scene for scene, _ in found], grey, labels, 2 * (len(parts) * seed + part) + 1)
        made.append((canvases, [KINDS.index(scene.kind) for scene, _ in found], [caption for _, caption in found]))
    images, labels, captions = (list(each) for each in zip(*made))
    return Dataset(
        "captioned_digits",
        images[0],
        np.asarray(labels[0], np.int32),
        np.concatenate(images[1:]),
        np.asarray(labels[1] + labels[2], np.int32),
        KINDS,
        captions=Captions(tuple(captions[0]), tuple(captions[1] + captions[2])),
    )


def draw(
    scenes: Sequence[Scene], digits: np.ndarray, labels: Int32[np.ndarray, " n"], seed: int
) -> UInt8[np.ndarray, "count _side _side 3"]:
    """A canvas of each scene.

    Args:
        digits: (n, 8, 8), from 0 to 1.
        labels: of the digits.
        seed: of the choice among the digits of a label, for every cell.
    """
    side = CELL * SIDE
    canvases = np.zeros((len(scenes), side, side, 3), np.uint8)
    by_label = [np.flatnonzero(labels == digit) for digit in range(10)]
    choices = np.random.Philox(key=seed).random_raw(SIDE * len(scenes)).reshape(len(scenes), SIDE)
    for canvas, scene, choice in zip(canvases, scenes, choices.tolist()):
        for which, ((row, column), (digit, colour)) in zip(choice, scene.cells.items()):
            grey = digits[by_label[digit][which % len(by_label[digit])]]
            if scene.large:
                canvas[...] = _tinted(grey.repeat(SIDE, 0).repeat(SIDE, 1), colour)
            else:
                canvas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = _tinted(grey, colour)
    return canvases


def _tinted(grey: np.ndarray, colour: str) -> UInt8[np.ndarray, "height width 3"]:
    return np.rint(grey[..., None] * np.asarray(RGB[colour], np.float32)).astype(np.uint8)
