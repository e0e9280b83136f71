"""Recipes of images: their flags and facts, and pictures of many. Imports nothing heavy."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import require
from ..config.base import TrainConfig
from ..config.data import DataConfig
from ..config.options import option
from .facts import ImageFacts
from .sampling import ImageSample

if TYPE_CHECKING:
    from ..data import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig(TrainConfig):
    """Flags of every recipe of images. A recipe's own `Config` adds its model."""

    data: DataConfig = option(factory=DataConfig)
    """The images."""
    eval_samples: int = option(1000, free=True)
    """Samples that the evaluator `classifier` judges."""

    def __post_init__(self):
        super().__post_init__()
        require(self.eval_samples >= 2, f"eval_samples must be at least 2: got {self.eval_samples}")


def facts_of(dataset: "Dataset") -> ImageFacts:
    """Facts of a data set."""
    return ImageFacts(dataset.image_shape, dataset.num_classes, dataset.levels)


def labels_of(options: ImageSample, classes: int) -> Any:
    """Labels `(n,)` of the images that `train.sample` is asked for: its label, or the classes in turn.

    Raises:
        UsageError: the label is none of the classes.
    """
    import numpy as np

    options.check_label(classes)
    labels = np.arange(options.n) % classes if options.label is None else np.full(options.n, options.label)
    return labels.astype(np.int32)


def show(images: Any, dataset: "Dataset", columns: int, path: Path) -> None:
    """Writes images in [-1, 1] as one picture; of several processes the first writes.

    Args:
        path: without suffix.
    """
    from ..data import image_grid, save_png
    from ..parallel.processes import is_first

    if is_first():
        save_png(path.with_suffix(".png"), image_grid(dataset.denormalise(images), columns))


def rows_in_turn(first: Any, second: Any, columns: int) -> Any:
    """A row of the first images, then one of the second, and so on, without what does not fill a row."""
    import numpy as np

    whole = len(first) // columns * columns
    pairs = np.stack([x[:whole].reshape(-1, columns, *x.shape[1:]) for x in (first, second)], axis=1)
    return pairs.reshape(-1, *first.shape[1:])
