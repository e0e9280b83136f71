"""Means and covariances as files of other tools have them."""

import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen._files import atomic
from eqxgen.metrics.features import Features

_SYMMETRIC = 1e-6  # largest difference of a covariance and its transpose, of its largest entry


class Statistics(NamedTuple):
    """The Gaussian of a set of features.

    Attributes:
        covariance: divided by n - 1.
        rows: from which it is; 0 where unknown, as of a file of pytorch-fid.
    """

    mean: Float[np.ndarray, " dim"]
    covariance: Float[np.ndarray, "dim dim"]
    rows: int = 0
    features: Features = Features()

    @property
    def rank(self) -> int:
        """The largest rank that the covariance can have: its rows less one, where they are known."""
        return min(len(self.mean), self.rows - 1) if self.rows else len(self.mean)

    def shortfall(self) -> str:
        """A line about fewer rows than features; empty where there are enough."""
        if self.rank == len(self.mean):
            return ""
        return (
            f"{self.rows:,} rows of {len(self.mean):,} features: the covariance has rank {self.rank:,} at most, and "
            f"the distance is biased upwards; take more than {len(self.mean):,}"
        )


def write_statistics(path: str | Path, statistics: Statistics) -> None:
    """Writes a file that pytorch-fid and EDM read: `mu` and `sigma`, and beside them `num`, `features`, `sha256`.

    Raises:
        ValueError: the path has another suffix than .npz.
        OSError: the file cannot be written; an old one is untouched.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz: got {path.name}")
    about = {"features": statistics.features.name, "sha256": statistics.features.sha256}
    with atomic(path) as part, part.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            mu=np.asarray(statistics.mean, np.float64),
            sigma=np.asarray(statistics.covariance, np.float64),
            num=np.int64(statistics.rows),
            **{name: np.asarray(text) for name, text in about.items()},
        )


def read_statistics(path: str | Path, features: Features | None = None) -> Statistics:
    """Statistics from a file with `mu` and `sigma`, as pytorch-fid and EDM write it; `num` is the number of rows.

    Args:
        features: those that the file is of, where it does not say so itself.

    Raises:
        ValueError: the file is no such archive, an array is missing, of another shape or not of finite real numbers,
            the covariance is not symmetric, or the file names other features.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name: _array(archive, path, name) for name in ("mu", "sigma", "num", "features", "sha256")}
    except zipfile.BadZipFile:
        raise ValueError(f"{path} must be an .npz archive with mu and sigma: got another kind of file") from None
    mean, covariance = (_real(path, name, found[name]) for name in ("mu", "sigma"))
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"{path}: mu and sigma must be (d,) and (d, d): got {mean.shape} and {covariance.shape}")
    largest, skew = np.max(np.abs(covariance)), np.max(np.abs(covariance - covariance.T))
    if skew > _SYMMETRIC * largest or np.min(np.diag(covariance)) < 0:
        raise ValueError(
            f"{path}: sigma must be a covariance, symmetric with a diagonal of at least 0: off by {skew:.3g}"
        )
    own = Features(*(_text(path, name, found[name]) for name in ("features", "sha256")))
    given = features or Features()
    known = given if not own.name else own if features is None else own.same(given)
    return Statistics(mean, (covariance + covariance.T) / 2, _rows(path, found["num"]), known)


def _array(archive: zipfile.ZipFile, path: Path, name: str) -> np.ndarray | None:
    """An array of the archive, whose header must agree with its size before memory is taken."""
    if f"{name}.npy" not in archive.namelist():
        return None
    size = archive.getinfo(f"{name}.npy").file_size
    try:
        with archive.open(f"{name}.npy") as file:
            shape, dtype = _header(file)
            if dtype.hasobject:
                raise ValueError(f"{path}: {name} must be numbers: got an array of Python objects, which is not read")
            if int(np.prod(shape, dtype=object)) * dtype.itemsize != size - file.tell():
                raise ValueError(f"{path}: {name} must have the size of its header, {shape}: the file is damaged")
        with archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: {name} cannot be read: {error}") from None


def _header(file: zipfile.ZipExtFile | IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _real(path: Path, name: str, array: np.ndarray | None) -> Float[np.ndarray, "..."]:
    if array is None:
        raise ValueError(f"{path} must have the arrays mu and sigma: {name} is missing")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} must be finite real numbers: got {array.dtype}")
    return array.astype(np.float64)


def _rows(path: Path, array: np.ndarray | None) -> int:
    if array is None:
        return 0
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{path}: num must be one integer of at least 0: got {array.dtype} of shape {array.shape}")
    return int(array)


def _text(path: Path, name: str, array: np.ndarray | None) -> str:
    if array is None:
        return ""
    if array.shape != () or array.dtype.kind != "U":
        raise ValueError(f"{path}: {name} must be one text: got {array.dtype} of shape {array.shape}")
    return str(array)
