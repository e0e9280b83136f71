"""From a name to a `Dataset`: one function per kind of source."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._errors import DataError
from ..config.data import DataConfig
from ..config.known import KNOWN
from .captioned.canvases import captioned_digits
from .captioned.emoji import load_emoji64
from .files.broken import Say
from .files.known_files import KnownFiles
from .files.lazy import Lazy
from .files.listing import counted
from .files.npz import Npz
from .files.prepared_index import is_prepared
from .files.rows import Rows
from .images.cifar import load_cifar10
from .images.dataset import UNLABELLED, Dataset, check_examples
from .images.decode_cache import cached
from .images.folder import read_folder
from .images.held_out import held_out, in_memory, parted
from .images.idx import read_idx
from .images.prepared import read_prepared

_HELD_OUT = 0.2


def load(config: DataConfig, files: KnownFiles | None = None, say: Say = print, *, captions: bool = False) -> Dataset:
    """The data set that `config` names.

    mnist, fashion_mnist and cifar10 have their official test parts. Of digits, eurosat64, and of a folder or an .npz
    without a test part, one fifth of each class is held out, always the same.

    Args:
        config: which set, and where.
        files: where known files are searched; by default in `config.root`, `$EQXGEN_DATA` and the cache folder.
        say: takes a line about what was read and left out.
        captions: read those of a folder of pictures too, and refuse a set without any.

    Raises:
        DataError: a file is missing, damaged or not the published one, its content is not images with their classes, a
            class has no image to train on, or captions are asked for and missing.
    """
    if config.is_path:
        dataset = _of_path(Path(config.name).expanduser(), config, say, captions)
    elif config.name == "digits":
        dataset = _digits()
    elif config.name == "captioned_digits":
        dataset = captioned_digits(_digits())
    else:
        dataset = _KNOWN[config.name](files or KnownFiles.of(config))
    if config.image_size is not None and dataset.image_shape[:2] != (config.image_size, config.image_size):
        expected = f"images of --data.image-size {config.image_size}"
        hint = "leave the flag out; only an image folder is resized"
        raise DataError(config.name, expected, f"{dataset.image_shape[:2]}", hint)
    if captions:
        dataset.captioned()
    return dataset.complete(config.name)


def _of_path(path: Path, config: DataConfig, say: Say, captions: bool) -> Dataset:
    memory = config.memory * 2**30
    if config.is_npz:
        return _npz(path, memory, say)
    if is_prepared(path):
        return read_prepared(path, memory)
    return read_folder(path, config, _HELD_OUT, say, captions=captions)


def _digits() -> Dataset:
    """The 8x8 digits of scikit-learn, values 0 to 16. Source: UCI "Optical Recognition of Handwritten Digits"."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        got, hint = f"no module {error.name}", 'pip install "eqxgen[train]"'
        raise DataError("digits", "scikit-learn, which ships them", got, hint) from error
    pixels, target = load_digits(return_X_y=True)
    images, known = pixels.reshape(-1, 8, 8, 1).astype(np.uint8), KNOWN["digits"]
    return _split("digits", images, target.astype(np.int32), known.classes, known.levels)


def _idx(name: str) -> Callable[[KnownFiles], Dataset]:
    """Reader of the four files of MNIST, and of sets in its layout."""

    def read(files: KnownFiles) -> Dataset:
        arrays: list[np.ndarray] = []
        for part in ("train", "t10k"):
            path, data = files.read(f"{name}/{part}-images-idx3-ubyte.gz")
            images = read_idx(path, data, rank=3)[..., None]
            path, data = files.read(f"{name}/{part}-labels-idx1-ubyte.gz")
            labels = read_idx(path, data, rank=1).astype(np.int32)
            check_examples(path, images, labels, len(KNOWN[name].classes))
            arrays += [images, labels]
        train_images, train_labels, test_images, test_labels = arrays
        return Dataset(name, train_images, train_labels, test_images, test_labels, KNOWN[name].classes)

    return read


def _eurosat64(files: KnownFiles) -> Dataset:
    """A tenth of EuroSAT. Source: Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark", 2019."""
    name = "eurosat64/eurosat64_every10th.npz"
    path, data = files.read(name)
    npz = Npz(path, io.BytesIO(data))
    images = cached(files.decoded_folder, files.files[name].sha256, lambda: npz.read("images", (4,), "u"))
    labels, classes = npz.read("labels", (1,), "iu"), npz.read_names("class_names")
    check_examples(path, images, labels, len(classes))
    return _split("eurosat64", images, labels.astype(np.int32), classes)


_KNOWN = {
    "mnist": _idx("mnist"),
    "fashion_mnist": _idx("fashion_mnist"),
    "cifar10": load_cifar10,
    "eurosat64": _eurosat64,
    "emoji64": load_emoji64,
}


def _npz(path: Path, memory: float, say: Say) -> Dataset:
    """A user's own arrays: images, and where given labels, class_names, test_images and test_labels. Large uncompressed
    images stay in the file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        hint = "check the path and its permissions"
        raise DataError(path, "a readable .npz file", f"{error.strerror}", hint) from error
    with file:
        npz = Npz(path, file)
        images, labels = _npz_part(npz, "", memory)
        names = npz.read_names("class_names") if "class_names" in npz else ()
        test = _npz_part(npz, "test_", memory) if "test_images" in npz or "test_labels" in npz else None
        unlabelled = "labels" not in npz
        unread = sorted(set(npz.names) - _ARRAYS)
    if not names and not unlabelled:
        # Not more classes than images: one label of 2**31 must not make as many names.
        check_examples(path, images, labels, len(images))
        names = tuple(map(str, range(int(labels.max()) + 1)))
    names = names or UNLABELLED
    check_examples(path, images, labels, len(names))
    about = "no array labels, so no classes" if unlabelled else counted(len(names), "class")
    left_out = f"arrays left out: {', '.join(unread[:3])}" if unread else "nothing left out"
    count = counted(len(images) + (len(test[0]) if test else 0), "image")
    say(f"{path}: {count}, {about}; {left_out}")
    if test is None:
        return _split(path.stem, images, labels.astype(np.int32), names)
    check_examples(path, *test, len(names))
    test_images, test_labels = in_memory(*test)
    return Dataset(path.stem, images, labels.astype(np.int32), test_images, test_labels.astype(np.int32), names)


_ARRAYS = {"images", "labels", "class_names", "test_images", "test_labels"}


def _npz_part(npz: Npz, prefix: str, memory: float) -> tuple[np.ndarray | Lazy, np.ndarray]:
    """uint8 images `(n, height, width, channels)` and their labels in the type of the file; zeros where it has none."""
    place = npz.locate(f"{prefix}images")
    if place and place[1] == np.uint8 and len(place[0]) in (3, 4) and math.prod(place[0]) > memory:
        shape, dtype, offset = place
        images = Rows(Path(npz.path), shape if len(shape) == 4 else (*shape, 1), dtype, offset)
    else:
        images = npz.read(f"{prefix}images", (3, 4), "u")
        images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8:
        hint = "convert them before numpy.savez"
        raise DataError(npz.path, f"uint8 {prefix}images from 0 to 255", f"{images.dtype}", hint)
    if "labels" not in npz and "class_names" not in npz and f"{prefix}labels" not in npz:
        return images, np.zeros(len(images), np.int32)
    return images, npz.read(f"{prefix}labels", (1,), "iu")


def _split(
    name: str, images: np.ndarray | Lazy, labels: np.ndarray, class_names: tuple[str, ...], levels: int = 256
) -> Dataset:
    """A `Dataset` whose test part is held out of the only part."""
    return Dataset(name, *parted(images, labels, held_out(labels, _HELD_OUT, name)), class_names, levels)
