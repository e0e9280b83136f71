"""The tokenizer of a run: pixels, or what a train.vqgan run learned."""

import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, UInt8

from eqxgen.models.pixels import PixelTokenizer
from eqxgen.models.vqgan import VQGAN

from .._errors import UsageError, UserError
from .._files import write_atomically
from ..data import Dataset
from ..data.files.lazy import Lazy
from ..evaluators.batched import batched
from ..run.weights import load_model
from ..vqgan import build as build_vqgan

Tokenizer = PixelTokenizer | VQGAN
COPY = "tokenizer.safetensors"


def load_vqgan(run: Path, mesh: Mesh | None = None) -> tuple[VQGAN, dict[str, Any]]:
    """The tokenizer of a finished train.vqgan run, or of a copy of its model.safetensors, in parts over a mesh.

    Raises:
        UserError: there is none, it is damaged, or the run is of another recipe.
    """
    path = _file(run)
    if not path.is_file():
        raise UserError(
            f"--tokenizer {run}: has no model.safetensors: give the folder of a finished train.vqgan run, or pixels"
        )

    def build(record: dict[str, Any]) -> VQGAN:
        if record.get("recipe") != "vqgan":
            raise UserError(f"--tokenizer {run}: is a run of train.{record.get('recipe')}: give one of train.vqgan")
        return build_vqgan(record)

    return load_model(path, build, mesh)


def _file(run: Path) -> Path:
    return run / "model.safetensors" if run.is_dir() else run


def open_tokenizer(where: str, dataset: Dataset, folder: Path) -> Tokenizer:
    """The tokenizer that `--tokenizer` names. A run that has begun uses its own copy, `tokenizer.safetensors`.

    Raises:
        UserError: there is none, or it is for images of another shape.
    """
    if where == "pixels":
        return PixelTokenizer(*dataset.image_shape, codes=dataset.levels)
    copy = folder / COPY
    tokenizer, _ = load_vqgan(copy if copy.exists() else Path(where))
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


def tokenizer_of_run(folder: Path, record: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a finished or interrupted train.maskgit run."""
    if record["config"]["tokenizer"] == "pixels":
        return PixelTokenizer(*record["facts"]["image_shape"], codes=record["facts"]["codes"])
    return load_vqgan(folder / COPY)[0]


def tokenize(
    tokenizer: Tokenizer,
    images: UInt8[np.ndarray, "n height width channels"] | Lazy,
    dataset: Dataset,
    *,
    mirrored: bool = False,
) -> Int[np.ndarray, "n tokens"]:
    """Ids of many images, or of their mirror images."""
    prepare = (lambda part: dataset.normalise(part[:, :, ::-1])) if mirrored else dataset.normalise
    return batched(_Encode(tokenizer), images, prepare=prepare)


def check_factor(factor: int, image_shape: tuple[int, int, int]) -> None:
    """Raises `UsageError` unless tokens of `factor` pixels tile the images."""
    if any(side % factor for side in image_shape[:2]):
        raise UsageError(
            f"--model.multipliers: each but the first halves the image, so {factor} must divide its sides: got images "
            f"of {image_shape}"
        )


class _Encode(eqx.Module):
    tokenizer: Any

    def __call__(self, image):
        return self.tokenizer.encode(image)
