"""Search images by text or by image with a run of train.clip.

  python -m train.search --run runs/clip-mnist --text "a seven" "the digit 4" --data mnist
  python -m train.search --run runs/clip-mnist --image seven.png --data mnist --n 16 --out found.png
  python -m train.search --run runs/clip-captioned_digits --text "a red 4 above a blue 9"
  python -m train.search --run runs/clip-emoji64 --text "red heart" --data ./pictures

Writes a picture with a row of the nearest images for each query, the cosine below each, and beside it a table of the
same name with the ending .csv. Images are the held-out ones of --data, by default the run's, or all pictures of a
folder, resized to the run's size where they are of another.
"""

import dataclasses
import sys
from collections.abc import Sequence

from ._errors import require
from .config import flags
from .config.data import DataConfig
from .config.options import option
from .engine.command import run
from .tasks.sampling import Pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Pictures):
    """The run, what is searched, and where."""

    text: tuple[str, ...] = option((), first=True)
    """Texts to search by."""
    image: tuple[str, ...] = option((), first=True)
    """Files of pictures to search by."""
    data: str | None = option(None, first=True)
    """A known set, or a folder of pictures, or one; by default the run's data."""
    root: str | None = None
    """Folder of the known sets, as --data.root of the recipes."""
    n: int | None = option(None, first=True)
    """Images of each query; 8 by default, or all where there are fewer."""
    out: str = "found.png"
    """Picture to write."""

    def __post_init__(self):
        super().__post_init__()
        require(self.as_grid, f"out must be the file of a picture: got {self.out!r}")
        require(self.columns is None, "columns goes without search, whose rows have --n images")
        require(self.n is None or self.n >= 1, f"n must be at least 1: got {self.n}")
        require(bool(self.text or self.image), 'text or image must be given, as in --text "a seven"')
        if self.data is not None:
            DataConfig(name=self.data)


def main(argv: Sequence[str]) -> int:
    asked = flags.parse(Options, "search", __doc__ or "", argv)
    asked.check_out()
    from .tasks.clip.search import search

    return search(asked)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
