"""Flags of `train.sample` for segmentation. Imports nothing heavy."""

import dataclasses

from ..._errors import require
from ..sampling import Sample

NAMES = "classes.json"
"""Values and names of the classes, in the folder of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentSample(Sample):
    """Masks of pictures of any size, and a picture of them."""

    images: str | None = None
    """Folder of pictures, or one picture; by default the held-out images, beside their masks."""
    out: str = "masks/"
    """Folder of the masks, a PNG each of the values of the training masks, with a slash at its end. The pictures with
    their classes in colours are in a file of its name with the ending .png."""
    tile: int | None = None
    """Side of the tiles, in pixels; by default the run's."""
    overlap: int | None = None
    """Pixels that neighbouring tiles share; by default the run's."""

    def __post_init__(self):
        super().__post_init__()
        require(self.out.endswith("/") and self.out.strip("/.") != "", f"out must be FOLDER/: got {self.out!r}")
        require(self.tile is None or self.tile >= 1, f"tile must be at least 1: got {self.tile}")
        require(self.overlap is None or self.overlap >= 0, f"overlap must be at least 0: got {self.overlap}")

    @property
    def picture(self) -> str:
        """File of the pictures with their classes."""
        return self.out.rstrip("/") + ".png"
