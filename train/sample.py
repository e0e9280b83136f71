"""Draw samples from any run.

  python -m train.sample --run runs/maskgit-mnist --label 7 --n 64 --steps 8 --guidance 2.0 --out sevens.png
  python -m train.sample --run runs/vqgan-mnist --out pairs.png          originals above their reconstructions

What is not given is as the run's config says. The same seed draws the same samples.
"""

import dataclasses
import sys
from pathlib import Path

from train import flags
from train.config import require, run
from train.errors import UsageError, UserError
from train.recipes import recipe_of
from train.rundir import read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to draw, from which run, to which file."""

    run: str
    """Folder of the run."""
    out: str = "samples.png"
    """PNG to write."""
    n: int = 64
    """Number of images."""
    label: int | None = None
    """Class of all images; by default the classes in turn."""
    columns: int = 8
    """Images in a row of the picture."""
    seed: int = 0
    """Seed of every draw."""
    steps: int | None = None
    """Parallel guesses per image, at most as many as tokens."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is none."""
    choice_temperature: float | None = None
    """Randomness of the order in which tokens are accepted."""
    temperature: float | None = None
    """Temperature of each token's draw."""
    schedule: str | None = None
    """Mask schedule."""

    def __post_init__(self):
        for name in ("n", "columns"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32): got {self.seed}")
        require(self.label is None or self.label >= 0, f"label must be at least 0: got {self.label}")
        require(self.steps is None or self.steps >= 1, f"steps must be at least 1: got {self.steps}")
        require(self.out.lower().endswith(".png"), f"out must be the name of a .png file: got {self.out!r}")


def main(config: Config) -> int:
    folder = Path(config.run)
    record = read_json(folder / "config.json")
    images = recipe_of(record, folder / "config.json").sample(folder, record, config)

    import numpy as np

    from train.data import image_grid, save_png

    pixels = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    try:
        save_png(config.out, image_grid(pixels, config.columns))
    except OSError as error:
        raise UserError(f"--out {config.out}: cannot be written: {error.strerror}") from None
    print(f"{len(images)} images in {config.out}")
    return 0


def check_label(label: int | None, classes: int) -> None:
    """Raises `UsageError` unless the label is one of the run's classes."""
    if label is not None and not 0 <= label < classes:
        raise UsageError(f"--label must be in [0, {classes}): got {label}")


def command() -> int:
    flags.check(sys.argv[1:], list(flags.names_of(Config)))
    return main(flags.parse(Config, "python -m train.sample", __doc__ or "", sys.argv[1:]))


if __name__ == "__main__":
    run(command)
