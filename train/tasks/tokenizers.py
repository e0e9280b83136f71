"""Tokenizers of images: opened, kept beside a run, and applied to many images."""

import shutil
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt8

from eqxgen.models import PixelTokenizer

from .._errors import UserError
from .._files import write_atomically
from ..data import Dataset
from ..data.files.lazy import Lazy
from ..engine.recipes import load
from ..evaluators.examples import Examples
from ..evaluators.stream import Stream
from ..parallel.processes import is_first
from .facts import TokenFacts

COPY = "tokenizer.safetensors"


@runtime_checkable
class Tokenizer(Protocol):
    """A tokenizer of images of one shape: `eqxgen.models.PixelTokenizer`, `eqxgen.models.VQGAN`."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        ...

    @property
    def codes(self) -> int:
        """Number of codes."""
        ...

    def encode(self, image: Array) -> Array:
        """Ids (tokens) of an image in [-1, 1]."""
        ...

    def decode(self, ids: Array) -> Array:
        """Image in [-1, 1] of ids."""
        ...


def open_tokenizer(where: str, dataset: Dataset, folder: Path) -> Tokenizer:
    """The tokenizer that `--tokenizer` names. A run that has begun uses its own copy, `tokenizer.safetensors`.

    Raises:
        UserError: there is none, it is damaged, or it is for images of another shape.
    """
    if where == "pixels":
        return PixelTokenizer(*dataset.image_shape, codes=dataset.levels)
    copy = folder / COPY
    tokenizer = _load(copy if copy.exists() else Path(where))
    if tokenizer.image_shape != dataset.image_shape:
        raise UserError(
            f"--tokenizer {where}: is for images of {tokenizer.image_shape} (height, width, channels), "
            f"but those of {dataset.name} are {dataset.image_shape}: train one on this data, or give the same "
            "--data.image-size"
        )
    return tokenizer


def keep_tokenizer(where: str, folder: Path) -> None:
    """Copies the tokenizer's file into the run's folder, so that the run can be sampled and resumed without the
    other.
    """
    if where != "pixels" and not (folder / COPY).exists():
        write_atomically(folder / COPY, lambda part: shutil.copyfile(_file(Path(where)), part))


def tokenizer_of_run(folder: Path, where: str, facts: TokenFacts) -> Tokenizer:
    """The tokenizer of a run that has begun.

    Args:
        where: its `--tokenizer`.
    """
    return PixelTokenizer(*facts.shape, codes=facts.codes) if where == "pixels" else _load(folder / COPY)


def _load(run: Path) -> Tokenizer:
    path = _file(run)
    if not path.is_file():
        raise UserError(
            f"--tokenizer {run}: has no model.safetensors: give the folder of a finished train.vqgan run, or pixels"
        )
    return load(path, "vqgan", where=f"--tokenizer {run}")


def _file(run: Path) -> Path:
    return run / "model.safetensors" if run.is_dir() else run


def tokenize(
    tokenizer: Tokenizer,
    images: UInt8[np.ndarray, "n height width channels"] | Lazy,
    dataset: Dataset,
    mesh: Mesh,
    *,
    mirrored: bool = False,
) -> Int[np.ndarray, "n tokens"]:
    """Ids of many images, or of their mirror images, by all devices of a mesh; every process makes the call."""

    def read(numbers: Int[np.ndarray, " rows"]) -> dict[str, np.ndarray]:
        part = images[numbers]
        return {"image": dataset.normalise(part[:, :, ::-1] if mirrored else part)}

    stream = Stream(mesh, say=print if is_first() else lambda text: None)
    return stream.gather(_encoded, tokenizer, Examples(len(images), read))


def _encoded(tokenizer: Tokenizer, example: dict[str, Array]) -> Int[Array, " tokens"]:
    return tokenizer.encode(example["image"])
