"""A folder of pictures with one subfolder per class."""

import os
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .errors import DataError
from .files import MAX_BYTES
from .picture import SUFFIXES, read_picture
from .split import held_out

_LAYOUT = "make one subfolder per class and put its pictures in it"


def read_folder(path: Path, image_size: int | None, fraction: float) -> Dataset:
    """The pictures of `path/<class>/`, or of `path/train/<class>/` and `path/test/<class>/` where both are there.

    Classes are numbered by the order of their names. Without a test part, `fraction` of each class is held out. Pictures that are all grey
    give 1 channel, others 3.

    Raises:
        DataError: there are fewer than two classes, one without pictures, a picture that cannot be read, or pictures of several sizes.
    """
    if not path.is_dir():
        raise DataError(path, "a folder of pictures", "a file" if path.exists() else "nothing there", "correct the path in --data.name")
    name = path.resolve().name
    if not ((path / "train").is_dir() and (path / "test").is_dir()):
        classes = _classes(path)
        images, labels = _read(path, classes, image_size)
        test = held_out(labels, fraction, os.fspath(path))
        return Dataset(name, images[~test], labels[~test], images[test], labels[test], tuple(classes))
    classes, tested = _classes(path / "train"), _classes(path / "test")
    if unknown := sorted(set(tested) - set(classes)):
        raise DataError(
            path / "test" / unknown[0], f"one of the classes of {path / 'train'}", "another", "use the same class folders in both"
        )
    images, labels = _read(path / "train", classes, image_size)
    test_images, test_labels = _read(path / "test", classes, image_size)
    channels = max(images.shape[3], test_images.shape[3])
    images, test_images = (np.broadcast_to(part, (*part.shape[:3], channels)) for part in (images, test_images))
    return Dataset(name, images, labels, test_images, test_labels, tuple(classes))


def _list(folder: Path) -> list[os.DirEntry]:
    """Entries by name, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(folder, "a readable folder", f"{error.strerror}", "check the path and its permissions") from error


def _classes(folder: Path) -> list[str]:
    names = [entry.name for entry in _list(folder) if Path(entry.path).is_dir()]
    if len(names) < 2:
        raise DataError(folder, "at least 2 class folders", f"{len(names)}", _LAYOUT)
    return names


def _read(folder: Path, classes: list[str], image_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """All pictures `(n, height, width, channels)` and their labels; only the class folders themselves are searched, so no link can loop."""
    pictures: list[np.ndarray] = []
    labels: list[int] = []
    total = 0
    for label, name in enumerate(classes):
        paths = [Path(entry.path) for entry in (_list(folder / name) if (folder / name).exists() else [])]
        paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
        if not paths:
            raise DataError(folder / name, f"pictures ({' '.join(SUFFIXES)})", "none", f"{_LAYOUT}, or take the folder out")
        for path in paths:
            picture = read_picture(path, image_size)
            if pictures and picture.shape[:2] != pictures[0].shape[:2]:
                expected = f"{pictures[0].shape[:2]} as the first picture has"
                raise DataError(path, expected, f"{picture.shape[:2]}", "pass --data.image-size to bring all to one size")
            total += picture.nbytes
            if total > MAX_BYTES:
                raise DataError(folder, f"pictures of {MAX_BYTES:,} bytes together at most", "more", "pass a smaller --data.image-size")
            pictures.append(picture)
            labels.append(label)
    channels = max(picture.shape[2] for picture in pictures)
    images = np.empty((len(pictures), *pictures[0].shape[:2], channels), np.uint8)
    for index, picture in enumerate(pictures):
        images[index] = picture
    return images, np.array(labels, np.int32)
