"""CIFAR-10: the official binary archive, or batches kept as .npz.

Source: "Learning Multiple Layers of Features from Tiny Images", A. Krizhevsky, 2009. The Python version of the archive
is pickled and is never read.
"""

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..._errors import DataError
from ...config.known import KNOWN
from ..files.contents import read_bytes, read_verified
from ..files.known_files import KnownFiles
from ..files.npz import Npz
from .dataset import Dataset, check_examples
from .decode_cache import cached

CLASSES = KNOWN["cifar10"].classes
_ARCHIVE = "cifar10/cifar-10-binary.tar.gz"
_PICKLED = ("cifar10/cifar-10-python.tar.gz", "cifar10/cifar-10-batches-py", "cifar10/data_batch_1")
_PARTS = tuple(f"data_batch_{index}" for index in range(1, 6))
_RECORD = 1 + 3 * 32 * 32
_BATCH = 10_000

Part = tuple[np.ndarray, np.ndarray]


def load_cifar10(files: KnownFiles) -> Dataset:
    """The archive if a folder holds it, else the .npz batches that a folder holds, else the archive downloaded.

    Of the .npz batches those of `data_batch_1.npz` to `data_batch_5.npz` that are there are the training part, and
    `test_batch_first5000.npz` is the test part.

    Raises:
        DataError: a file is missing, is not the published one, or only the pickled version is there.
    """
    batches = [name for name in (f"cifar10/{part}.npz" for part in _PARTS) if files.find(name)]
    if files.find(_ARCHIVE) is None and batches:
        train = [_read_batch(files, name) for name in batches]
        test = _read_batch(files, "cifar10/test_batch_first5000.npz")
    elif files.find(_ARCHIVE) is None and (pickled := next(filter(None, map(files.find, _PICKLED)), None)):
        got = "the pickled one, which could run any code"
        raise DataError(pickled, "the binary version", got, f"put {Path(_ARCHIVE).name} beside it")
    else:
        path, data = files.read(_ARCHIVE)
        *train, test = _read_archive(path, data)
    images, labels = (np.concatenate(arrays) for arrays in zip(*train))
    return Dataset("cifar10", images, labels, *test, CLASSES)


def _read_batch(files: KnownFiles, name: str) -> Part:
    """One .npz batch. The sums of batches 3 to 5 are not known, so those are checked by their content alone."""
    path = files.find(name)
    if path is None:
        raise files.missing(name)
    known = files.files.get(name)
    data = read_verified(path, known.sha256, known.size) if known else read_bytes(path)
    npz = Npz(path, io.BytesIO(data))
    decode = lambda: npz.read("images", (4,), "u")
    images = cached(files.decoded_folder, known.sha256, decode) if known else decode()
    labels = npz.read("labels", (1,), "iu")
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise DataError(path, "uint8 images of (32, 32, 3)", f"{images.dtype} {images.shape[1:]}", "fetch it again")
    check_examples(path, images, labels, len(CLASSES))
    return images, labels.astype(np.int32)


def _read_archive(path: Path, data: bytes) -> list[Part]:
    """The five training batches and the test batch, read by name and in memory: no member is ever written to disk."""
    wanted = [f"cifar-10-batches-bin/{name}.bin" for name in (*_PARTS, "test_batch")]
    found: dict[str, Part] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
            for member in archive:
                if member.name not in wanted:
                    continue
                if not member.isreg() or member.size != _RECORD * _BATCH or member.name in found:
                    expected = f"one file of {_RECORD * _BATCH:,} bytes as {member.name}"
                    raise DataError(path, expected, f"{member.size:,} bytes, or another", "fetch it again")
                entry = archive.extractfile(member)
                assert entry is not None
                found[member.name] = _records(path, entry.read())
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(path, "a tar.gz archive", str(error), "it is damaged; fetch it again") from error
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            path, f"the file {missing[0]} in it", f"{len(found)} of {len(wanted)} batches", "fetch it again"
        )
    return [found[name] for name in wanted]


def _records(path: Path, data: bytes) -> Part:
    """One batch: records of a label byte and 3x32x32 bytes, channel by channel."""
    rows: UInt8[np.ndarray, "n record"] = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    check_examples(path, images, rows[:, 0], len(CLASSES))
    return images, rows[:, 0].astype(np.int32)
