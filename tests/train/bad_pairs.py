"""Images and masks that cannot be trained on: cases 135 and 136 of the list of bad inputs."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.train.bad_config import flags
from tests.train.bad_input import Case

EVEN = np.resize([0, 255], (16, 16)).astype(np.uint8)


def pairs(what: str, change: Callable[[Path], object], says: str, words: str = "") -> Case:
    """A folder of three good pairs, changed."""

    def prepare(folder: Path) -> list[str]:
        for kind in ("images", "masks"):
            (folder / "x" / kind).mkdir(parents=True)
            for row in range(3):
                Image.fromarray(EVEN).save(folder / "x" / kind / f"{row}.png")
        change(folder / "x")
        line = "--run-dir run --data.name ./x --data.crop 16 --tile 16 --overlap 0"
        return ["train.segment", *shlex.split(line), *shlex.split(words)]

    return Case(135, what, prepare, says)


def masks(pixels: np.ndarray, *rows: int) -> Callable[[Path], object]:
    return lambda path: [Image.fromarray(pixels).save(path / "masks" / f"{row}.png") for row in rows or range(3)]


def wrong(words: str, says: str) -> Case:
    return flags(136, words, says, module="train.segment")


CASES = [
    pairs("an image without a mask", lambda path: (path / "masks" / "1.png").unlink(), "x/masks: expected a mask of the name of each image, got 1 of 3 without: 1.png: add the masks"),
    pairs("no folder of masks", lambda path: (path / "masks").rename(path / "labels"), "x: expected folders images and masks, got no masks"),
    pairs("a mask of another size", masks(EVEN[:8], 1), "masks/1.png: expected a mask of 16 x 16, the size of its image, got 8 x 16: save the mask at the size"),
    pairs("a value of no class", masks(np.where(EVEN, 250, 0).astype(np.uint8), 2), r"masks/2.png: expected a mask of the listed values \(0 is ground; 255 is cell\), got 250 in 128 of 256 pixels", "--data.classes 0=ground 255=cell"),
    pairs("soft edges", masks(np.arange(256, dtype=np.uint8).reshape(16, 16)), "x/masks: expected at most 32 values of pixels, got more: save masks as PNG"),
    pairs("one class alone", masks(0 * EVEN), "x: expected masks with pixels of at least 2 classes, got one, 0"),
    pairs("a class without pixels", lambda path: None, "x: expected training pixels of every class, got none of hole", "--data.classes 0 7=hole 255"),
    pairs("one pair", lambda path: [(path / kind / f"{row}.png").unlink() for kind in ("images", "masks") for row in (1, 2)], "x: expected two or more images"),
    wrong("--data.crop 100", "data.crop must be a multiple of 8, as the net halves it 3 times: got 100"),
    wrong("--tile 4 --overlap 0", "tile must be a multiple of 8, as the net halves it 3 times: got 4"),
    wrong("--tile 64", "overlap must be at least 0 and below tile, 64: got 64"),
    wrong("--dice 0 --cross-entropy 0", "cross_entropy and dice must not both be 0: got 0 and 0"),
    wrong("--new-head", "new_head goes with --from, which was not given"),
    wrong("--model.norm group --model.width 12", "model.groups must divide the channels of every level: got model.groups=8, 12, 24, 48, 96 channels"),
]  # fmt: skip
