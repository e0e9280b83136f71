"""From a name to a `Dataset`: one function per kind of source, one table."""

import io
import math
from pathlib import Path

import numpy as np

from ..config.data import DataConfig
from .errors import DataError
from .feed.split import held_out, in_memory, parted
from .files.lazy import Lazy
from .files.prepared import is_prepared, read_prepared
from .files.rows import Rows
from .files.store import Store
from .images.cifar import load_cifar10
from .images.dataset import Dataset, check_examples
from .images.decoded import cached
from .images.folder import read_folder
from .images.idx import read_idx
from .images.npz import Npz

_DIGITS = tuple(map(str, range(10)))
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_HELD_OUT = 0.2


def load(config: DataConfig, store: Store | None = None) -> Dataset:
    """The data set that `config` names.

    mnist, fashion_mnist and cifar10 have their official test parts. Of digits, eurosat64, and of a folder or an .npz
    without a test part, one fifth of each class is held out, always the same.

    Args:
        config: which set, and where.
        store: where known files are looked for; by default what `config.root`, `$EQXGEN_DATA` and the cache folder say.

    Raises:
        DataError: a file is missing, damaged or not the published one, or its content is not labelled images.
    """
    if config.is_path:
        path = Path(config.name).expanduser()
        memory = config.memory * 2**30
        if config.is_npz:
            dataset = _npz(path, memory)
        elif is_prepared(path):
            dataset = read_prepared(path, memory)
        else:
            dataset = read_folder(path, config.image_size, _HELD_OUT, memory)
    elif config.name == "digits":
        dataset = _digits()
    else:
        store = store or Store.of(config)
        load_known = {
            "mnist": _mnist,
            "fashion_mnist": _fashion_mnist,
            "cifar10": load_cifar10,
            "eurosat64": _eurosat64,
        }
        dataset = load_known[config.name](store)
    if config.image_size is not None and dataset.image_shape[:2] != (config.image_size, config.image_size):
        expected = f"images of --data.image-size {config.image_size}"
        raise DataError(
            config.name, expected, f"{dataset.image_shape[:2]}", "leave the flag out; only an image folder is resized"
        )
    return dataset


def _digits() -> Dataset:
    """The 8x8 digits of scikit-learn, values 0 to 16. Source: UCI "Optical Recognition of Handwritten Digits"."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DataError(
            "digits", "scikit-learn, which ships them", f"no module {error.name}", 'pip install "eqxgen[train]"'
        ) from error
    pixels, target = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1).astype(np.uint8)
    return _split("digits", images, target.astype(np.int32), _DIGITS, levels=17)


def _mnist(store: Store) -> Dataset:
    return _idx("mnist", store, _DIGITS)


def _fashion_mnist(store: Store) -> Dataset:
    return _idx("fashion_mnist", store, _FASHION)


def _idx(name: str, store: Store, class_names: tuple[str, ...]) -> Dataset:
    """The four files of MNIST and of those that copied its layout."""
    arrays: list[np.ndarray] = []
    for part in ("train", "t10k"):
        path, data = store.read(f"{name}/{part}-images-idx3-ubyte.gz")
        images = read_idx(path, data, rank=3)[..., None]
        path, data = store.read(f"{name}/{part}-labels-idx1-ubyte.gz")
        labels = read_idx(path, data, rank=1).astype(np.int32)
        check_examples(path, images, labels, len(class_names))
        arrays += [images, labels]
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(name, train_images, train_labels, test_images, test_labels, class_names)


def _eurosat64(store: Store) -> Dataset:
    """A tenth of EuroSAT. Source: Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark", 2019."""
    name = "eurosat64/eurosat64_every10th.npz"
    path, data = store.read(name)
    npz = Npz(path, io.BytesIO(data))
    images = cached(store.decoded_folder, store.files[name].sha256, lambda: npz.read("images", (4,), "u"))
    labels, class_names = npz.read("labels", (1,), "iu"), npz.read_names("class_names")
    check_examples(path, images, labels, len(class_names))
    return _split("eurosat64", images, labels.astype(np.int32), class_names)


def _npz(path: Path, memory: float) -> Dataset:
    """A user's own arrays: images and labels, and where given class_names, test_images and test_labels. Uncompressed
    ones stay in the file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            path, "a readable .npz file", f"{error.strerror}", "check the path and its permissions"
        ) from error
    with file:
        npz = Npz(path, file)
        images, labels = _npz_part(npz, "", memory)
        names = npz.read_names("class_names") if "class_names" in npz else ()
        test = _npz_part(npz, "test_", memory) if "test_images" in npz or "test_labels" in npz else None
    if not names:
        # Not more classes than images: one label of 2**31 must not make as many names.
        check_examples(path, images, labels, len(images))
        names = tuple(map(str, range(int(labels.max()) + 1)))
    check_examples(path, images, labels, len(names))
    if test is None:
        return _split(path.stem, images, labels.astype(np.int32), names)
    check_examples(path, *test, len(names))
    test_images, test_labels = in_memory(*test)
    return Dataset(path.stem, images, labels.astype(np.int32), test_images, test_labels.astype(np.int32), names)


def _npz_part(npz: Npz, prefix: str, memory: float) -> tuple[np.ndarray | Lazy, np.ndarray]:
    """uint8 images `(n, height, width, channels)` and their labels in whatever integers they were written."""
    place = npz.locate(f"{prefix}images")
    if place and place[1] == np.uint8 and len(place[0]) in (3, 4) and math.prod(place[0]) > memory:
        shape, dtype, offset = place
        images = Rows(Path(npz.path), shape if len(shape) == 4 else (*shape, 1), dtype, offset)
    else:
        images = npz.read(f"{prefix}images", (3, 4), "u")
        images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8:
        raise DataError(
            npz.path, f"uint8 {prefix}images from 0 to 255", f"{images.dtype}", "convert them before numpy.savez"
        )
    return images, npz.read(f"{prefix}labels", (1,), "iu")


def _split(
    name: str, images: np.ndarray | Lazy, labels: np.ndarray, class_names: tuple[str, ...], levels: int = 256
) -> Dataset:
    """A `Dataset` whose test part is held out of the one part that there is."""
    return Dataset(name, *parted(images, labels, held_out(labels, _HELD_OUT, name)), class_names, levels)
