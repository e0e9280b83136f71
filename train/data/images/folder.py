"""A folder of pictures: one subfolder per class, or no classes at all."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..._errors import DataError
from ...config.data import DataConfig
from ..captioned.beside import captions_beside
from ..files.broken import Say, read_each
from ..files.listing import Listing, counted, entries_of, first, list_files, parts_of
from .dataset import UNLABELLED, Captions, Dataset
from .held_out import held_out, thinned
from .lazy_pictures import Pictures, SizeError, read_sized
from .picture import SUFFIXES, read_picture

_KINDS = "pictures (PNG, JPEG, WebP, GIF, TIFF, BMP, PPM, ...)"
_LAYOUT = "make one subfolder per class and put its pictures in it, or put all pictures into the folder itself"

Classes = dict[str, list[str]]
"""Paths below the folder, by class."""


def read_folder(path: Path, config: DataConfig, fraction: float, say: Say, *, captions: bool = False) -> Dataset:
    """The pictures below `path/<class>/`, or below `path/train/<class>/` and `path/test/<class>/`, see `parts_of`.

    Classes are numbered by the order of their names; pictures in the folder itself, with none below, have no classes.
    Without a test part, `fraction` of each class is held out. Pictures that are all grey give 1 channel, others 3.
    Where those to train on would take more than `config.memory` they stay in their files. A line has the number of
    pictures, and the files left out with their reasons.

    Args:
        fraction: held out of each class.
        captions: read them, see `captions_beside`.

    Raises:
        DataError: there are no pictures, a class without any, some that cannot be read, pictures of several sizes, or
            captions that do not match.
    """
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise DataError(path, "a folder of pictures", got, "correct the path in --data.name")
    listing, reader = Listing(), _Reader(path, config, say)
    if parts := parts_of(path, listing):
        classes, tested = (_classes(path, part, listing) for part in parts)
        if unknown := [name for name, files in tested.items() if files and name not in classes]:
            expected = f"one of the classes of {path / parts[0]}"
            raise DataError(path / parts[1] / unknown[0], expected, "another", "use the same class folders in both")
        train, test = _Files.of(classes, list(classes)), _Files.of(tested, list(classes))
    else:
        classes = _classes(path, "", listing)
        whole = _Files.of(classes, list(classes))
        held = held_out(whole.labels, fraction, os.fspath(path))
        train, test = whole.chosen(~held), whole.chosen(held)
    if empty := [name for name, files in classes.items() if not files]:
        hint = f"{_LAYOUT}; take other folders out"
        raise DataError(path, f"{_KINDS} in every class folder", f"none in {first(empty)}", hint)
    kinds = "no classes" if (*classes,) == UNLABELLED else counted(len(classes), "class")
    if parts:
        kinds = f"{kinds}, {parts[1]}/ held out"
    if captions and (beside := captions_beside(path, [*train.names, *test.names], listing.others())):
        texts, used, unread = np.array(beside[0], object), beside[1], beside[2]
        train = dataclasses.replace(train, texts=texts[: len(train)])
        test = dataclasses.replace(test, texts=texts[len(train) :])
        listing.take(used | unread)
        listing.skip("texts of pictures, whose captions are those of the table", sorted(unread))
        kinds = f"{kinds}, captions of {counted(len(used), 'file')}"
    say(f"{path}: {counted(len(train) + len(test), 'picture')}, {kinds}; {listing.left_out()}")
    return reader.dataset(tuple(classes), train, test)


def _classes(path: Path, part: str, listing: Listing) -> Classes:
    """The pictures of one part by class; other files are added to the listing."""
    with_part = lambda names: [f"{part}/{name}" if part else name for name in names]
    classes: Classes = {}
    own: list[str] = []
    for entry in entries_of(path / part):
        if entry.name.startswith("."):
            listing.skip("hidden", with_part([entry.name]))
        elif Path(entry.path).is_dir():
            below = _below(path / part, entry.name)
            classes[entry.name] = with_part(below.found)
            listing.add(Listing(skipped=below.skipped), f"{part}/" if part else "")
        else:
            own.append(entry.name)
    pictures = [name for name in own if name.lower().endswith(SUFFIXES)]
    if any(classes.values()):
        listing.skip("outside the class folders", with_part(own))
        return classes
    if not pictures:
        got = f"none in {first([*classes])}" if classes else "none"
        raise DataError(path / part, _KINDS, got, _LAYOUT)
    listing.skip("of another kind", with_part(name for name in own if name not in pictures))
    return {UNLABELLED[0]: with_part(pictures)}


def _below(folder: Path, name: str) -> Listing:
    """Files of a class, by their paths below the folder of all classes."""
    if folder.resolve().is_relative_to((folder / name).resolve()):
        raise DataError(folder / name, "pictures of one class", "a link to a folder above it", "take the link out")
    listing = Listing()
    listing.add(list_files(folder / name, SUFFIXES), f"{name}/")
    return listing


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
    """Pictures: paths below the folder, as an array of `str`, labels, and captions where there are any."""

    names: np.ndarray
    labels: np.ndarray
    texts: np.ndarray | None = None

    @classmethod
    def of(cls, found: Classes, classes: list[str]) -> "_Files":
        names = [found.get(name, []) for name in classes]
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in names])
        return cls(np.array([file for files in names for file in files], object), labels)

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, rows: np.ndarray) -> "_Files":
        return _Files(self.names[rows], self.labels[rows], None if self.texts is None else self.texts[rows])


def _captions(train: _Files, test: _Files) -> Captions | None:
    if train.texts is None or test.texts is None:
        return None
    return Captions(tuple(train.texts.tolist()), tuple(test.texts.tolist()))


@dataclasses.dataclass(frozen=True)
class _Reader:
    """From files to arrays."""

    folder: Path
    config: DataConfig
    say: Say

    def dataset(self, classes: tuple[str, ...], train: _Files, test: _Files) -> Dataset:
        height, width = size = self._size(train)
        row, name = height * width * 3, self.folder.resolve().name
        if len(train) * row <= self.config.memory * 2**30:
            whole = _Files(np.concatenate([train.names, test.names]), np.concatenate([train.labels, test.labels]))
            kept, images = self._read(whole, size)
            labels, cut = whole.labels[kept], int(np.sum(kept < len(train)))
            captions = _captions(train.chosen(kept[:cut]), test.chosen(kept[cut:] - len(train)))
            parts = images[:cut], labels[:cut], images[cut:], labels[cut:]
            return Dataset(name, *parts, classes, captions=captions)
        test = test.chosen(thinned(len(test), row))
        if self.config.skip_broken:
            train = train.chosen(self._each(train, size, pixels=False)[0])
        _, firsts = self._read(train.chosen(np.unique(train.labels, return_index=True)[1]), size)
        kept, test_images = self._read(test, size)
        channels = max(firsts.shape[3], test_images.shape[3])
        images = Pictures(self.folder, train.names.tolist(), self.config.image_size, (height, width, channels))
        test_images = np.broadcast_to(test_images, (*test_images.shape[:3], channels))
        captions = _captions(train, test.chosen(kept))
        return Dataset(name, images, train.labels, test_images, test.labels[kept], classes, captions=captions)

    def _size(self, files: _Files) -> tuple[int, int]:
        """Height and width of the first picture that can be read."""
        errors: list[DataError] = []
        for name in files.names:
            try:
                height, width, _ = read_picture(self.folder / name, self.config.image_size).shape
            except DataError as error:
                errors.append(error)
            else:
                return height, width
        raise errors[0]

    def _read(self, files: _Files, size: tuple[int, int]) -> tuple[np.ndarray, UInt8[np.ndarray, "n _h _w _c"]]:
        """Rows of the pictures that can be read, and their pixels."""
        kept, pictures = self._each(files, size, pixels=True)
        images = np.empty((len(pictures), *size, max(picture.shape[2] for picture in pictures)), np.uint8)
        for image, picture in zip(images, pictures):
            image[...] = picture
        return kept, images

    def _each(self, files: _Files, size: tuple[int, int], *, pixels: bool) -> tuple[np.ndarray, list[np.ndarray]]:
        """Rows of the pictures that can be read, and the pixels of each, or of none where only a check is wanted."""
        skip, threads = self.config.skip_broken, self.config.threads

        def one(path: Path) -> np.ndarray | SizeError:
            try:
                picture = read_sized(path, self.config.image_size, size)
            except SizeError as error:
                return error
            return picture if pixels else picture[:0]

        found = read_each(self.folder, files.names.tolist(), one, skip=skip, say=self.say, threads=threads)
        kept = np.array([row for row, result in enumerate(found) if result is not None], int)
        other = {files.names[row]: result for row in kept if isinstance(result := found[row], SizeError)}
        if len(other) == 1:
            raise next(iter(other.values()))
        if other:
            sizes = first([f"{name} {error.reason}" for name, error in other.items()])
            got = f"{len(other):,} of {len(kept):,} of another: {sizes}"
            hint = "pass --data.image-size to bring all to one size"
            raise DataError(self.folder, f"pictures of {size}, as the first is", got, hint)
        return kept, [found[row] for row in kept]
