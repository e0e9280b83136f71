"""Images with masks, and the checks that every source of them shares."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from ..._errors import DataError
from ...config.pairs import MaskClass
from ..files.lazy import fingerprint_of

# The underscores leave the comparison of sizes to `Part`, which names the file and the hint.
Image = UInt8[np.ndarray, "_height _width _channels"]
Mask = UInt8[np.ndarray, "_height _width"]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Images of any size, and for each the class of every pixel.

    Raises:
        DataError: there is no image, or a mask is not of its image's size.
    """

    names: tuple[str, ...]
    images: tuple[Image, ...]
    masks: tuple[Mask, ...]

    def __post_init__(self):
        for name, image, mask in zip(self.names, self.images, self.masks):
            if image.shape[:2] != mask.shape:
                expected = f"a mask of {image.shape[0]} x {image.shape[1]}, the size of its image"
                hint = "save the mask at the size of the image, without resizing"
                raise DataError(name, expected, f"{mask.shape[0]} x {mask.shape[1]}", hint)

    def __len__(self) -> int:
        return len(self.images)


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Training and held-out images with masks.

    Attributes:
        name: of the set.
        train, test: the two parts.
        classes: of a pixel.

    Raises:
        DataError: a part is empty, images have different channels, or a class has no pixel to train on.
    """

    name: str
    train: Part
    test: Part
    classes: tuple[MaskClass, ...]

    def __post_init__(self):
        for words, part in (("training", self.train), ("held-out", self.test)):
            if not len(part):
                raise DataError(self.name, f"a {words} image with its mask", "none", "add images")
        if len(self.classes) < 2:
            only = f"one, {self.classes[0].name}" if self.classes else "none"
            hint = "give masks with another class too, or list the classes with --data.classes"
            raise DataError(self.name, "masks with pixels of at least 2 classes", only, hint)
        channels = {image.shape[2] for part in (self.train, self.test) for image in part.images}
        if len(channels) > 1 or not channels <= {1, 3}:
            raise DataError(self.name, "images of 1 channel, or all of 3", f"{sorted(channels)}", "convert them")
        counts = sum(np.bincount(mask.ravel(), minlength=len(self.classes)) for mask in self.train.masks)
        if missing := [kind.name for kind, count in zip(self.classes, np.asarray(counts)) if not count]:
            hint = "leave them out of --data.classes, or add training images that have them"
            raise DataError(self.name, "training pixels of every class", f"none of {', '.join(missing)}", hint)

    @property
    def channels(self) -> int:
        """Of every image."""
        return self.train.images[0].shape[2]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every array."""
        return fingerprint_of(*self.train.images, *self.train.masks, *self.test.images, *self.test.masks)

    def normalise(self, images: np.ndarray) -> Float32[np.ndarray, "..."]:
        """Grey levels from 0 to 255 as float32 in [-1, 1]."""
        return images.astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def classes_of(masks: Sequence[UInt8[np.ndarray, "..."]], most: int) -> tuple[MaskClass, ...]:
    """The values of pixels in masks `(height, width, 1 or 3)`, in order; none where there are more than `most`."""
    found: set[tuple[int, ...]] = set()
    for mask in masks:
        flat = mask.reshape(-1, mask.shape[2]).astype(np.uint32)
        numbers = np.unique(flat @ (256 ** np.arange(mask.shape[2], dtype=np.uint32)))
        found |= {tuple(int(n) >> (8 * c) & 255 for c in range(mask.shape[2])) for n in numbers}
        if len(found) > most:
            return ()
    return tuple(MaskClass(value, ",".join(map(str, value))) for value in sorted(found))


def labelled(name: str, mask: UInt8[np.ndarray, "height width channels"], classes: Sequence[MaskClass]) -> Mask:
    """Class of each pixel of a mask, grey where the classes are grey.

    Raises:
        DataError: a pixel has a value of no class.
    """
    labels = np.full(mask.shape[:2], 255, np.uint8)
    for number, kind in enumerate(classes):
        labels[np.all(mask == np.array(kind.value, np.uint8), axis=-1)] = number
    if len(wrong := mask[labels == 255]):
        shown = "; ".join(f"{','.join(map(str, kind.value))} is {kind.name}" for kind in classes[:4])
        got = f"{','.join(map(str, wrong[0].tolist()))} in {len(wrong):,} of {labels.size:,} pixels"
        more = " ..." if len(classes) > 4 else ""
        hint = "save masks as PNG, without soft edges, or list every class with --data.classes"
        raise DataError(name, f"a mask of the listed values ({shown}{more})", got, hint)
    return labels
