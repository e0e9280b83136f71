"""Latents or tokens of images, which an autoencoder has made once: their arrays, labels and origin."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from .._errors import DataError
from ..config.data import DataConfig
from .files.broken import Say
from .files.lazy import Lazy, fingerprint_of
from .files.prepared_index import HINT, INDEX, index_errors, is_prepared, read_array, read_index
from .files.rows import Joined, Rows
from .images.dataset import Dataset
from .images.grid import to_uint8
from .sources import load

LATENTS, IDS = "latents", "image tokens"
"""Kinds of prepared sets. Latents are the means of posteriors, then their deviations, along the last axis."""


class Statistics(NamedTuple):
    """Mean and deviation of each channel of latents, by which a model's inputs are (latent - mean) / deviation."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the float64 numbers, little-endian, means first."""
        return hashlib.sha256(np.asarray([*self.mean, *self.deviation], "<f8").tobytes()).hexdigest()

    @classmethod
    def of_scale(cls, scale: float, channels: int) -> "Statistics":
        """Those of one factor for all channels, such as Stable Diffusion's 0.18215."""
        return cls((0.0,) * channels, (1 / scale,) * channels)

    @classmethod
    def of_sums(cls, sums: Iterable[Mapping[str, Any]]) -> "Statistics":
        """Those of the draws of posteriors, from what `sums_of` gave of each part."""
        each = [np.array([part["places"], *part["sum"], *part["squares"]], np.float64) for part in sums]
        places, *rest = np.sum(each, axis=0)
        mean, square = np.split(np.array(rest) / places, 2)
        return cls(tuple(mean.tolist()), tuple(np.sqrt(np.maximum(square - mean**2, 0)).tolist()))


def sums_of(latents: Float[np.ndarray, "n height width moments"]) -> dict[str, Any]:
    """Float64 sums over the places of posteriors, for each channel: of their draws' expected values and squares."""
    mean, deviation = np.split(latents.astype(np.float64), 2, axis=-1)
    over = (0, 1, 2)
    squares = np.sum(mean**2 + deviation**2, axis=over)
    return {"places": math.prod(mean.shape[:3]), "sum": mean.sum(over).tolist(), "squares": squares.tolist()}


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A prepared set of latents or tokens.

    Attributes:
        name: of its folder.
        kind: `LATENTS` or `IDS`.
        image_shape: height, width and channels of the images.
        class_names: by label.
        levels: grey levels of the images.
        copies: the training part; and its mirror images, where they were asked for.
        test: the held-out part.
        tokenizer: folder of the model that made it.
        sha256: of that model's arrays, as `train.run.weights.digest` gives it.
        statistics: of latents.
        codes: number of different tokens; 0 for latents.
        origin: the images, as `train.config.data.DataConfig` names them, and their `fingerprint`.
    """

    name: str
    kind: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    levels: int
    copies: tuple[np.ndarray | Lazy, ...]
    train_labels: Int[np.ndarray, " _n"]
    test: np.ndarray
    test_labels: Int[np.ndarray, " _m"]
    tokenizer: str
    sha256: str
    statistics: Statistics | None
    codes: int
    origin: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a latent."""
        height, width, moments = self.copies[0].shape[1:]
        return height, width, moments // 2

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every array, of lazy ones as `Lazy.fingerprint`, and of the model and the statistics."""
        arrays = fingerprint_of(*self.copies, self.train_labels, self.test, self.test_labels)
        found = f"{arrays} {self.sha256} {self.statistics and self.statistics.sha256}"
        return hashlib.sha256(found.encode()).hexdigest()

    def rows(
        self, example: Int[np.ndarray, " n"], mirrored: Bool[np.ndarray, " n"] | None = None
    ) -> Num[np.ndarray, "n ..."]:
        """Rows of the training part, some of them of its mirror images."""
        if mirrored is None:
            return self.copies[0][example]
        first = self.copies[0]
        found = np.empty((len(example), *first.shape[1:]), first.dtype)
        for rows, chosen in zip(self.copies, (~mirrored, mirrored)):
            found[chosen] = rows[example[chosen]]
        return found

    def check(self, config: DataConfig, batch_size: int) -> "Encoded":
        """This set; raises `DataError` where the flags ask for what it has not."""
        size, augment = config.image_size, config.augment
        if batch_size > len(self.train_labels):
            expected = f"at least as many training images as --batch-size, {batch_size}"
            raise DataError(self.name, expected, f"{len(self.train_labels)}", "pass a smaller --batch-size")
        if size is not None and self.image_shape[:2] != (size, size):
            expected = f"{self.kind} of images of --data.image-size {size}"
            raise DataError(self.name, expected, f"of {self.image_shape[:2]}", "leave the flag out, or prepare others")
        if augment.beyond_flip:
            expected = f"no --data.augment but flip, as the {self.kind} of each image were made once"
            raise DataError(self.name, expected, f"{augment}", "leave the others out")
        if augment.flip and len(self.copies) < 2:
            expected = f"{self.kind} of mirror images for --data.augment.flip"
            raise DataError(self.name, expected, "none", "prepare them with --mirror, or give --no-data.augment.flip")
        return self

    def images(self, root: str | None = None, say: Say = print) -> Dataset:
        """The images that it was made of.

        Args:
            root: folder of the known sets, in place of the one of the preparation.

        Raises:
            DataError: they cannot be read, or are others now.
        """
        found = load(_named(self.origin, root), say=say)
        if found.fingerprint != self.origin["fingerprint"]:
            expected = f"the images that {self.name} was made of, with fingerprint {self.origin['fingerprint'][:12]}"
            raise DataError(found.name, expected, found.fingerprint[:12], "put them back, or prepare again")
        return found

    def images_or_reason(self, root: str | None = None) -> tuple[Dataset | None, str]:
        """The images that it was made of, or None and the reason."""
        try:
            return self.images(root), ""
        except DataError as error:
            return None, str(error)

    def denormalise(self, images: Num[np.ndarray, "..."]) -> np.ndarray:
        """Images in [-1, 1] for a screen: see `to_uint8`."""
        return to_uint8(images)


def is_encoded(config: DataConfig, kind: str) -> bool:
    """True where `config` names a prepared set of a kind, `LATENTS` or `IDS`.

    Raises:
        DataError: it is a prepared set whose index is damaged.
    """
    path = Path(config.name).expanduser()
    return config.is_path and not config.is_npz and is_prepared(path) and read_index(path)["kind"] == kind


def read_encoded(config: DataConfig, kind: str) -> Encoded:
    """A prepared set of latents or tokens: checked and held in memory, or its training part left in its files where it
    would take more than --data.memory.

    Raises:
        DataError: see `read_index`; or an array is damaged, or not what the index says.
    """
    path = Path(config.name).expanduser()
    index = read_index(path, kind)
    memory = config.memory * 2**30
    with index_errors(path):
        train, test = index["parts"]["train"], index["parts"]["test"]
        names = [train["rows"], *([train["mirrored"]] if "mirrored" in train else [])]
        files = [[index["files"][name] for name in each] for each in names]
        lazy = sum(file["bytes"] for each in files for file in each) > memory
        height, width, channels = map(int, index["image_shape"])
        found = Encoded(
            name=path.resolve().name,
            kind=kind,
            image_shape=(height, width, channels),
            class_names=tuple(map(str, index["classes"])),
            levels=int(index["levels"]),
            copies=tuple(_rows(path, each, lazy=lazy) for each in files),
            train_labels=read_array(path, index["files"][train["labels"]]),
            test=np.asarray(_rows(path, [index["files"][name] for name in test["rows"]], lazy=False)),
            test_labels=read_array(path, index["files"][test["labels"]]),
            tokenizer=str(index["tokenizer"]["path"]),
            sha256=str(index["tokenizer"]["sha256"]),
            statistics=_statistics(path, index) if kind == LATENTS else None,
            codes=int(index.get("codes", 0)),
            origin=dict(index["origin"]),
        )
        _named(found.origin, str(found.origin["fingerprint"]))
    _check(path, found, tuple(index["shape"]))
    return found


def _rows(path: Path, files: list[dict[str, Any]], *, lazy: bool) -> np.ndarray | Lazy:
    if lazy:
        return Joined([Rows.of_npy(path / file["name"]) for file in files])
    return np.concatenate([read_array(path, file) for file in files])


def _named(origin: Mapping[str, Any], root: str | None) -> DataConfig:
    """The images of an index, in another folder of known sets where one is given."""
    given: dict[str, Any] = {"root": root or origin["root"], "image_size": origin["image_size"]}
    return DataConfig(str(origin["name"]), skip_broken=bool(origin["skip_broken"]), **given)


def _statistics(path: Path, index: Mapping[str, Any]) -> Statistics:
    values = index["statistics"]
    found = Statistics(tuple(map(float, values["mean"])), tuple(map(float, values["deviation"])))
    if found.sha256 != values["sha256"]:
        expected = f"statistics with SHA-256 {values['sha256']}"
        raise DataError(path / INDEX, expected, found.sha256, "they were edited: prepare the set again")
    if not all(map(math.isfinite, found.mean)) or not all(0 < value < math.inf for value in found.deviation):
        numbers = ", ".join(f"{mean:.4g} and {value:.4g}" for mean, value in zip(found.mean, found.deviation))
        raise DataError(path / INDEX, "finite means and deviations above 0 of the channels", numbers, HINT)
    return found


def check_statistics(path: Path, index: Mapping[str, Any]) -> None:
    """Raises `DataError` where the statistics of an index of latents were edited, or are none."""
    if index["kind"] == LATENTS:
        with index_errors(path):
            _statistics(path, index)


def _check(path: Path, found: Encoded, shape: tuple[int, ...]) -> None:
    """Raises `DataError` unless rows, labels and statistics fit together."""
    for rows, labels in (*((rows, found.train_labels) for rows in found.copies), (found.test, found.test_labels)):
        if tuple(rows.shape) != (len(labels), *shape) or len(labels) == 0:
            raise DataError(path, f"rows of {shape}, one for each of {len(labels)} labels", f"{rows.shape}", HINT)
        if labels.min() < 0 or labels.max() >= found.num_classes:
            got = f"{int(labels.min())} to {int(labels.max())}"
            raise DataError(path, f"labels from 0 to {found.num_classes - 1}", got, HINT)
    if found.statistics is not None and len(found.statistics.deviation) * 2 != shape[-1]:
        got = f"{len(found.statistics.deviation)}"
        raise DataError(path / INDEX, f"statistics of {shape[-1] // 2} channels", got, HINT)
    held = [rows for rows in (*found.copies, found.test) if isinstance(rows, np.ndarray)]
    if found.kind == IDS and (top := max(int(rows.max()) for rows in held)) >= found.codes:
        raise DataError(path, f"tokens below {found.codes:,}", f"{top:,}", HINT)


def halves(
    moments: Float[np.ndarray, "*rows moments"],
) -> tuple[Float[np.ndarray, "*rows channels"], Float[np.ndarray, "*rows channels"]]:
    """Means and deviations of stored latents."""
    mean, deviation = np.split(moments, 2, axis=-1)
    return mean, deviation
