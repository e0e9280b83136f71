"""Preparation of latents and tokens: images encoded once by a frozen autoencoder, on all devices of a mesh."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from eqxgen.models.autoencoder import KLAutoencoder

from ..._errors import UsageError, UserError
from ...config.data import DataConfig
from ...data import Dataset, load
from ...data.encoded import IDS, LATENTS, Statistics, sums_of
from ...data.files.broken import Say
from ...data.files.draft import Draft
from ...data.files.lazy import Lazy
from ...data.files.prepared_index import FORMAT
from ...evaluators.stream import Stream
from ...run.weights import digest
from ..tokenizers import as_tokenizer, examples, ids_of
from .encoders import in_float32, latents_shape, open_encoder

MIB = 2**20


def prepare_encoded(
    config: DataConfig,
    out: Path,
    tokenizer: str,
    mesh: Mesh,
    *,
    mirror: bool = False,
    scale: float | None = None,
    batch: int = 64,
    shard_bytes: int = 256 * MIB,
    say: Say = print,
) -> Path:
    """Writes the tokens of the images that `config` names, or mean and deviation of the posteriors of their latents, as
    shards of at most `shard_bytes`, with their labels, statistics and an index; gives the index's path.

    The encoder computes in float32. The held-out part is the one of `load`. The same call after an interruption goes on
    with the unfinished shard.

    Args:
        tokenizer: the folder of a run, or of a published autoencoder.
        mesh: of this process alone.
        mirror: writes those of the mirror images of the training part as a second set.
        scale: one factor for all channels of latents, in place of their measured statistics.
        batch: images at a time, over all devices.

    Raises:
        DataError: the images cannot be read, or the folder holds something else.
        UsageError: a scale is given for tokens.
        UserError: the model cannot be read or is for other images, its latents are not finite or constant, or the
            folder cannot be written.
    """
    dataset = load(config, say=say)
    model, shape, codes = _opened(tokenizer, dataset.image_shape)
    if codes and scale is not None:
        raise UsageError(f"--scale goes with latents: got {scale} for the tokens of {tokenizer}")
    sha256 = digest(model)
    where = os.path.abspath(Path(tokenizer).expanduser())
    about = {
        "format": FORMAT,
        "kind": IDS if codes else LATENTS,
        "classes": list(dataset.class_names),
        "levels": dataset.levels,
        "image_shape": list(dataset.image_shape),
        "shape": list(shape),
        "tokenizer": {"path": where, "sha256": sha256},
        "origin": _origin(config, dataset),
    } | ({"codes": codes} if codes else {})
    draft = Draft(out, about, f"{dataset.fingerprint} {sha256} {mirror} {scale} {shard_bytes}", say)
    writer = _Writer(draft, in_float32(model), Stream(mesh, say=say), shape, codes, shard_bytes, batch)
    train: dict[str, Any] = {"rows": writer.write("train", dataset, dataset.train_images)}
    if mirror:
        train["mirrored"] = writer.write("train-mirrored", dataset, dataset.train_images, mirrored=True)
    parts = {"train": train, "test": {"rows": writer.write("test", dataset, dataset.test_images)}}
    for part, labels in (("train", dataset.train_labels), ("test", dataset.test_labels)):
        draft.write(f"{part}-labels.npy", lambda labels=labels: labels)
        parts[part]["labels"] = f"{part}-labels.npy"
    found: dict[str, Any] = {"parts": parts}
    if not codes:
        names = [name for rows in train.values() if isinstance(rows, list) for name in rows]
        found["statistics"] = _statistics([draft.files[name] for name in names], scale, shape[-1] // 2)
    say(_told(found, dataset, draft, shape, codes, config.name))
    return draft.finish(found)


def _opened(tokenizer: str, image_shape: tuple[int, int, int]) -> tuple[Any, tuple[int, ...], int]:
    """The encoder, the shape of a row that is written, and the number of codes, 0 for latents."""
    flag = f"--tokenizer {tokenizer}"
    model = open_encoder(tokenizer, "--tokenizer")
    if isinstance(model, KLAutoencoder):
        height, width, channels = latents_shape(model, image_shape, "--tokenizer", tokenizer)
        return model, (height, width, 2 * channels), 0
    found = as_tokenizer(model, image_shape, flag)
    if found.image_shape != image_shape:
        raise UserError(
            f"{flag}: is for images of {found.image_shape} (height, width, channels): got {image_shape}; give the same "
            "--image-size"
        )
    return found, (found.tokens,), found.codes


def _origin(config: DataConfig, dataset: Dataset) -> dict[str, Any]:
    """The images as `DataConfig` names them, and their fingerprint."""
    name = os.path.abspath(Path(config.name).expanduser()) if config.is_path else config.name
    root = None if config.root is None else os.path.abspath(Path(config.root).expanduser())
    values = {"name": name, "root": root, "image_size": config.image_size, "skip_broken": config.skip_broken}
    return values | {"fingerprint": dataset.fingerprint}


class _Writer:
    """Rows of images, encoded as they are read and written shard by shard."""

    def __init__(
        self, draft: Draft, model: Any, stream: Stream, shape: tuple[int, ...], codes: int, shard: int, batch: int
    ):
        self._draft, self._model, self._stream, self._codes, self._batch = draft, model, stream, codes, batch
        self._dtype = np.dtype((np.uint16 if codes <= 2**16 else np.uint32) if codes else np.float32)
        self._rows = max(1, shard // (math.prod(shape) * self._dtype.itemsize))

    def write(self, name: str, dataset: Dataset, images: np.ndarray | Lazy, *, mirrored: bool = False) -> list[str]:
        """Writes the shards that are not there; gives the names of all."""
        starts = range(0, len(images), self._rows)
        names = [f"{name}-{number:05}.npy" for number in range(len(starts))]
        ranges = {name: np.arange(at, min(at + self._rows, len(images))) for name, at in zip(names, starts)}
        missing = {name: rows for name, rows in ranges.items() if not self._draft.has(name)}
        if missing:
            chosen = np.concatenate([*missing.values()])
            asked = examples(dataset, images, chosen, mirrored=mirrored, batch=self._batch)
            results = self._stream.map(ids_of if self._codes else moments_of, self._model, asked)
            for name, array in zip(missing, _cut(results, [len(rows) for rows in missing.values()])):
                self._draft.add(name, self._checked(array, name), None if self._codes else sums_of(array))
        return names

    def _checked(self, array: np.ndarray, name: str) -> np.ndarray:
        if not self._codes and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).reshape(len(array), -1).any(1).sum())
            raise UserError(f"{name}: must have finite latents: got {bad} of {len(array)} images whose are not")
        return array.astype(self._dtype)


def moments_of(model: KLAutoencoder, example: dict[str, Array]) -> Float[Array, "height width moments"]:
    """Mean and deviation of the posterior of an example's image, along the channels."""
    mean, log_variance = model.encode(example["image"])
    return jnp.concatenate([mean, jnp.exp(0.5 * log_variance)], axis=-1)


def _cut(results: Iterator[np.ndarray], sizes: list[int]) -> Iterator[np.ndarray]:
    """Arrays of the given sizes from batches of rows, with no more than a shard and a batch in memory."""
    kept: list[np.ndarray] = []
    for size in sizes:
        while sum(map(len, kept)) < size:
            kept.append(next(results))
        whole = np.concatenate(kept)
        kept = [whole[size:]]
        yield whole[:size]


def _statistics(sums: list[dict[str, Any]], scale: float | None, channels: int) -> dict[str, Any]:
    found = Statistics.of_sums(sums) if scale is None else Statistics.of_scale(scale, channels)
    for channel, deviation in enumerate(found.deviation):
        if deviation == 0:
            raise UserError(
                f"latents must differ: got channel {channel} equal in all images; is the autoencoder trained?"
            )
    return {"mean": list(found.mean), "deviation": list(found.deviation), "sha256": found.sha256}


def _told(found: dict[str, Any], dataset: Dataset, draft: Draft, shape: tuple[int, ...], codes: int, name: str) -> str:
    """A line with the sizes and what was left out."""
    size = sum(file["bytes"] for file in draft.files.values()) / MIB
    pixels = (dataset.train_images.nbytes + dataset.test_images.nbytes) / MIB
    row = " x ".join(map(str, shape if codes else (*shape[:2], shape[2] // 2)))
    kind = f"{row} tokens of {codes:,}" if codes else f"posteriors of {row} latents"
    sides = "with their mirror images" if "mirrored" in found["parts"]["train"] else "without mirror images"
    count = f"{len(dataset.train_labels):,} + {len(dataset.test_labels):,} images {sides}"
    text = f"{kind} of {count}: {size:,.2f} MiB in place of {pixels:,.2f} MiB of pixels, which are left out"
    if not codes:
        numbers = lambda values: ", ".join(f"{value:.4g}" for value in values)
        text += f"; mean {numbers(found['statistics']['mean'])}; deviation {numbers(found['statistics']['deviation'])}"
    return f"{text}; judges of samples read them from {name}"
