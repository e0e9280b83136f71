"""A folder of pictures with one subfolder per class."""

import os
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..feed.split import held_out, thinned
from .dataset import Dataset
from .picture import SUFFIXES, read_picture
from .pictures import Pictures, read_sized

_LAYOUT = "make one subfolder per class and put its pictures in it"

Listed = tuple[np.ndarray, np.ndarray]
"""Paths, as an array of `str`, and labels."""


def read_folder(path: Path, image_size: int | None, fraction: float, memory: float) -> Dataset:
    """The pictures of `path/<class>/`, or of `path/train/<class>/` and `path/test/<class>/` where both are there.

    Classes are numbered by the order of their names. Without a test part, `fraction` of each class is held out.
    Pictures that are all grey give 1 channel, others 3. Where those to train on would take more than `memory` bytes
    they stay in their files.

    Raises:
        DataError: there are fewer than two classes, one without pictures, a picture that cannot be read, or pictures of
            several sizes.
    """
    if not path.is_dir():
        raise DataError(
            path,
            "a folder of pictures",
            "a file" if path.exists() else "nothing there",
            "correct the path in --data.name",
        )
    name = path.resolve().name
    if not ((path / "train").is_dir() and (path / "test").is_dir()):
        classes = _classes(path)
        paths, labels = _pictures(path, classes)
        test = held_out(labels, fraction, os.fspath(path))
        return _dataset(name, classes, (paths[~test], labels[~test]), (paths[test], labels[test]), image_size, memory)
    classes, tested = _classes(path / "train"), _classes(path / "test")
    if unknown := sorted(set(tested) - set(classes)):
        raise DataError(
            path / "test" / unknown[0],
            f"one of the classes of {path / 'train'}",
            "another",
            "use the same class folders in both",
        )
    return _dataset(
        name, classes, _pictures(path / "train", classes), _pictures(path / "test", classes), image_size, memory
    )


def _dataset(
    name: str, classes: list[str], train: Listed, test: Listed, image_size: int | None, memory: float
) -> Dataset:
    (paths, labels), (test_paths, test_labels) = train, test
    height, width = read_picture(Path(paths[0]), image_size).shape[:2]
    if lazy := len(paths) * height * width * 3 > memory:
        kept = thinned(len(test_paths), height * width * 3)
        test_paths, test_labels = test_paths[kept], test_labels[kept]
    test_images = _read(test_paths, image_size, (height, width))
    if lazy:
        firsts = _read(paths[np.unique(labels, return_index=True)[1]], image_size, (height, width))
        channels = max(firsts.shape[3], test_images.shape[3])
        images = Pictures(paths.tolist(), image_size, (height, width, channels))
    else:
        images = _read(paths, image_size, (height, width))
        channels = max(images.shape[3], test_images.shape[3])
        images = np.broadcast_to(images, (*images.shape[:3], channels))
    test_images = np.broadcast_to(test_images, (*test_images.shape[:3], channels))
    return Dataset(name, images, labels, test_images, test_labels, tuple(classes))


def _list(folder: Path) -> list[os.DirEntry]:
    """Entries by name, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            folder, "a readable folder", f"{error.strerror}", "check the path and its permissions"
        ) from error


def _classes(folder: Path) -> list[str]:
    names = [entry.name for entry in _list(folder) if Path(entry.path).is_dir()]
    if len(names) < 2:
        raise DataError(folder, "at least 2 class folders", f"{len(names)}", _LAYOUT)
    return names


def _pictures(folder: Path, classes: list[str]) -> Listed:
    """Only the class folders themselves are searched, so no link can loop."""
    found: list[str] = []
    counts: list[int] = []
    for name in classes:
        entries = _list(folder / name) if (folder / name).exists() else []
        paths = [entry.path for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
        if not paths:
            raise DataError(
                folder / name, f"pictures ({' '.join(SUFFIXES)})", "none", f"{_LAYOUT}, or take the folder out"
            )
        found += paths
        counts.append(len(paths))
    return np.array(found, object), np.repeat(np.arange(len(classes), dtype=np.int32), counts)


def _read(paths: np.ndarray, image_size: int | None, size: tuple[int, int]) -> np.ndarray:
    """All pictures `(n, height, width, channels)`."""
    pictures = [read_sized(path, image_size, size) for path in paths]
    images = np.empty((len(pictures), *size, max(picture.shape[2] for picture in pictures)), np.uint8)
    for image, picture in zip(images, pictures):
        image[...] = picture
    return images
