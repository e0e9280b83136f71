"""Facts of data sets without reading them, for `--dry-run`."""

from typing import NamedTuple

from ..config.data import DataConfig
from ..config.known import KNOWN


class Facts(NamedTuple):
    """Shape `(height, width, channels)` of the images, number of classes, number of grey levels."""

    image_shape: tuple[int, int, int]
    classes: int
    levels: int = 256


def facts_of(data: DataConfig) -> Facts:
    """Those of a known set; for a path, colour images of --data.image-size (256 by default) and ImageNet's 1,000
    classes.
    """
    if known := KNOWN.get(data.name):
        height, width, channels = known.shape
        return Facts((height, width, channels), len(known.classes), known.levels)
    size = data.image_size or 256
    return Facts((size, size, 3), 1000)
