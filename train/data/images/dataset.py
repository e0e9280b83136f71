"""Images with their classes, and the checks that every source shares."""

import dataclasses
import functools
import hashlib
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Integer, Num, UInt8

from ..._errors import DataError
from ..files.lazy import Lazy, fingerprint_of
from ..files.listing import first
from .grid import to_uint8

UNLABELLED = ("unlabelled",)
"""Class names of images without classes: all have label 0."""

# The underscores leave the comparison of sizes to `__post_init__`, which names the data set and the hint.
Images = UInt8[np.ndarray, "_n _height _width _channels"]
Labels = Int32[np.ndarray, " _n"]


class Captions(NamedTuple):
    """A text for every training image, and for every held-out one."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out images with their classes, and captions where there are any.

    Images are `(n, height, width, channels)` with values `0 <= value < levels`; labels are `(n,)` with `0 <= label <
    num_classes`. Training images that the memory cannot hold are `Lazy`. Images without classes have one, `UNLABELLED`.

    Raises:
        DataError: a part is empty, or shapes, levels or labels do not fit together.
    """

    name: str
    train_images: Images | Lazy
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...]
    levels: int = 256
    captions: Captions | None = None

    def __post_init__(self):
        for part, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            where = f"{self.name} ({part} part)"
            check_examples(where, images, labels, self.num_classes)
            if images.shape[1:] != self.image_shape:
                raise DataError(
                    where, f"images of {self.image_shape}", f"{images.shape[1:]}", "make both parts the same size"
                )
            if isinstance(images, np.ndarray) and self.levels < 256 and (top := int(images.max())) >= self.levels:
                raise DataError(
                    where, f"pixel values below {self.levels}", f"{top}", "set levels to the number of grey levels"
                )

        for part, texts, images in zip(
            ("training", "test"), self.captions or (), (self.train_images, self.test_images)
        ):
            if len(texts) != len(images):
                where, got = f"{self.name} ({part} part)", f"{len(texts):,} captions"
                raise DataError(where, f"{len(images):,} captions, one for each image", got, "give each image one")

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every array, and of the captions; of a lazy one, of the names, sizes and a sample of its files."""
        found = fingerprint_of(self.train_images, self.train_labels, self.test_images, self.test_labels)
        if self.captions is None:
            return found
        texts = hashlib.sha256(found.encode())
        for caption in (*self.captions.train, *self.captions.test):
            texts.update(b"\0" + caption.encode())
        return texts.hexdigest()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def enough_for(self, batch_size: int) -> "Dataset":
        """This data set; raises `DataError` where a batch would hold an example twice."""
        if batch_size > len(self.train_images):
            expected = f"at least as many training images as --batch-size, {batch_size}"
            raise DataError(
                self.name, expected, f"{len(self.train_images)}", "pass a smaller --batch-size, or add images"
            )
        return self

    def labelled(self, least: int = 2) -> "Dataset":
        """This data set; raises `DataError` where it has fewer than `least` classes."""
        if self.num_classes < least:
            got = "images without classes" if self.class_names == UNLABELLED else f"{self.num_classes}"
            raise DataError(
                self.name, f"at least {least} classes", got, "add classes, or train a recipe without labels"
            )
        return self

    def captioned(self) -> Captions:
        """The captions; raises `DataError` where there are none."""
        if self.captions is None:
            hint = (
                "use captioned_digits, emoji64, or a folder of pictures with metadata.jsonl, captions.jsonl or a .txt "
                "beside each"
            )
            raise DataError(self.name, "images with captions", "no captions", hint)
        return self.captions

    def complete(self, where: str | os.PathLike) -> "Dataset":
        """This data set; raises `DataError` where a class has no image to train on."""
        counts = np.bincount(self.train_labels, minlength=self.num_classes)
        if missing := [f"{label} ({self.class_names[label]!r})" for label in np.flatnonzero(counts == 0).tolist()]:
            hint = "number the labels from 0 without gaps, or take out the classes without images"
            expected = f"training images of all {self.num_classes:,} classes"
            raise DataError(where, expected, f"none of class {first(missing)}", hint)
        return self

    def normalise(self, images: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
        """Grey levels `0 ... levels - 1` as float32 in [-1, 1], both ends reached."""
        return images.astype(np.float32) * np.float32(2 / (self.levels - 1)) - np.float32(1)

    def denormalise(self, images: Num[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """Images in [-1, 1] for a screen, of any number of levels: see `to_uint8`."""
        return to_uint8(images)


def check_examples(
    where: str | os.PathLike,
    images: UInt8[np.ndarray, "..."] | Lazy,
    labels: Integer[np.ndarray, "..."],
    num_classes: int,
) -> None:
    """Raises `DataError` unless there is a first image, every image has pixels and a label, and every label is a
    class.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        expected = "images of (n, height, width, channels) with 1 or 3 channels"
        raise DataError(where, expected, f"shape {images.shape}", "put channels last, and leave alpha out")
    if len(images) == 0:
        raise DataError(where, "at least one image", "none", "add images")
    if labels.shape != images.shape[:1]:
        raise DataError(
            where,
            f"{len(images)} labels, one for each image",
            f"shape {labels.shape}",
            "the two files or arrays do not belong together",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        got = f"label {low if low < 0 else high} at index {int((labels.argmin if low < 0 else labels.argmax)())}"
        raise DataError(
            where, f"labels from 0 to {num_classes - 1}", got, "correct the labels, or name every class in class_names"
        )
