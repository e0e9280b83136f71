"""A folder of small pictures with texts, for tests of models of images by text."""

from pathlib import Path

import numpy as np
from PIL import Image

TEXT = ("red dot", "blue", "dot")


def captioned_pictures(folder: Path) -> Path:
    """The folder with 15 pictures of 4 x 4 pixels, and a text beside each."""
    values = np.random.default_rng(0).integers(0, 256, (15, 4, 4, 3), np.uint8)
    for number, value in enumerate(values):
        Image.fromarray(value).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(TEXT[number % 3])
    return folder
