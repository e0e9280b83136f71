"""Pictures in files, decoded when they are asked for."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..errors import DataError
from ..files.lazy import Lazy
from .picture import read_picture


class Pictures(Lazy):
    """The pictures at some paths, all of one size, and all grey or all shown in colour.

    Args:
        paths: of the files.
        image_size: as for `read_picture`.
        shape: `(height, width, channels)` that each must have; a grey one is repeated where there are 3 channels.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[str], image_size: int | None, shape: tuple[int, int, int]):
        self._paths, self._image_size = paths, image_size
        self.shape = (len(paths), *shape)

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        path, channels = self._paths[index], self.shape[3]
        picture = read_sized(path, self._image_size, (self.shape[1], self.shape[2]))
        if picture.shape[2] > channels:
            cure = "make it grey, or put a colour picture first in some class"
            raise DataError(path, "a grey picture, as the first of every class is", "colours", cure)
        return np.broadcast_to(picture, self.shape[1:])

    def name(self, index: int) -> str:
        return self._paths[index]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.shape).encode())
        for path in self._paths:
            digest.update(os.fsencode(path) + b"\0%d\0" % os.path.getsize(path))
        return digest.hexdigest()


def read_sized(path: str, image_size: int | None, size: tuple[int, int]) -> UInt8[np.ndarray, "height width channels"]:
    """`read_picture`, refused unless the picture has the `(height, width)` of the others.

    Raises:
        DataError: as `read_picture`, or it has another size.
    """
    picture = read_picture(Path(path), image_size)
    if picture.shape[:2] != size:
        cure = "pass --data.image-size to bring all to one size"
        raise DataError(path, f"{size} as the first picture has", f"{picture.shape[:2]}", cure)
    return picture
