"""Picture files as an array, decoded on demand."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..._errors import DataError
from ..files.contents import sampled_hash
from ..files.lazy import Lazy
from .picture import read_picture

_SAMPLED = 64


class Pictures(Lazy):
    """Pictures of one size, all grey or all in colour.

    Args:
        folder: of the files.
        names: of the files, below the folder.
        image_size: as for `read_picture`.
        shape: `(height, width, channels)` that each must have; a grey one is repeated where there are 3 channels.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, names: Sequence[str], image_size: int | None, shape: tuple[int, int, int]):
        self._folder, self._names, self._image_size = folder, names, image_size
        self.shape = (len(names), *shape)

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        path, channels = self._folder / self._names[index], self.shape[3]
        picture = read_sized(path, self._image_size, (self.shape[1], self.shape[2]))
        if picture.shape[2] > channels:
            hint = "make it grey, or put a colour picture first in some class"
            raise DataError(path, "a grey picture, as the first of every class is", "colours", hint)
        return np.broadcast_to(picture, self.shape[1:])

    def name(self, index: int) -> str:
        return os.fspath(self._folder / self._names[index])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every name and size, and of the contents of 64 files spread evenly over them."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for name in self._names:
            digest.update(os.fsencode(name) + b"\0%d\0" % os.path.getsize(self._folder / name))
        for index in sorted({(len(self) - 1) * part // (_SAMPLED - 1) for part in range(_SAMPLED)}):
            with (self._folder / self._names[index]).open("rb") as file:
                digest.update(sampled_hash(file.fileno()).encode())
        return digest.hexdigest()


class SizeError(DataError):
    """A picture of another size than the first."""


def read_sized(path: Path, image_size: int | None, size: tuple[int, int]) -> UInt8[np.ndarray, "height width channels"]:
    """`read_picture`, refused unless the picture has the `(height, width)` of the others.

    Raises:
        DataError: as `read_picture`.
        SizeError: the picture has another size.
    """
    picture = read_picture(path, image_size)
    if picture.shape[:2] != size:
        hint = "pass --data.image-size to bring all to one size"
        raise SizeError(path, f"{size} as the first picture has", f"{picture.shape[:2]}", hint)
    return picture
