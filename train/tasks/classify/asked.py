"""Flags of `train.sample` for classifiers. Imports nothing heavy."""

import dataclasses

from ..._errors import require
from ..sampling import ImageSample

NAMES = "classes.json"
"""Names of the classes, in the folder of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSample(ImageSample):
    """Held-out images by the class that they are given, or the classes of pictures."""

    images: str | None = None
    """Folder of pictures, or one picture, to classify: --out is a picture of them with their classes, beside a table
    of the same name with the ending .csv."""
    top: int | None = None
    """With --images: classes of each picture in the table, the most probable first; 3 by default, or all where there
    are fewer."""

    def __post_init__(self):
        super().__post_init__()
        require(self.top is None or self.top >= 1, f"top must be at least 1: got {self.top}")
        require(self.top is None or self.images is not None, "top goes with images, which was not given")
        require(
            self.images is None or self.as_grid, f"out must be the file of a picture with --images: got {self.out!r}"
        )
        given = [
            name for name in ("n", "per_class", "label", "labels", "columns") if getattr(self, name) not in (None, ())
        ]
        require(self.images is None or not given, f"images goes without {', '.join(given)}")
