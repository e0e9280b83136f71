"""What is known of the data sets without reading them, for `--dry-run`."""

from typing import NamedTuple

from ..config.data import DataConfig


class Facts(NamedTuple):
    """Shape `(height, width, channels)` of the images, number of classes, number of grey levels."""

    image_shape: tuple[int, int, int]
    classes: int
    levels: int = 256


KNOWN = {
    "digits": Facts((8, 8, 1), 10, 17),
    "mnist": Facts((28, 28, 1), 10),
    "fashion_mnist": Facts((28, 28, 1), 10),
    "cifar10": Facts((32, 32, 3), 10),
    "eurosat64": Facts((64, 64, 3), 10),
}


def facts_of(data: DataConfig) -> Facts:
    """Those of a known set; for a path, colour images of --data.image-size (256 by default) and ImageNet's 1,000
    classes.
    """
    size = data.image_size or 256
    return KNOWN.get(data.name, Facts((size, size, 3), 1000))
