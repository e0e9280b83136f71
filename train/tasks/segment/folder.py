"""Masks of a folder's pictures, or of the held-out images, and a picture of them: `train.sample` of segmentation."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ..._errors import UserError
from ..._files import read_json, write_atomically
from ...config.pairs import MaskClass
from ...data import save_picture
from ...data.files.listing import files_at
from ...data.images.picture import REPLACE, SUFFIXES, read_picture
from ...data.pairs.pairs import Pairs
from ...data.pairs.sources import load_pairs
from ...engine.recipes import Finished
from ...evaluators.stream import Stream
from ...evaluators.tiles import Tiling, shares_of
from ...parallel import make_mesh
from ..classify.folder import WANTED, as_grey, without_colours
from . import pictures
from .asked import NAMES, SegmentSample

SHOWN = 8
"""Pictures that are shown."""


class Pictured(NamedTuple):
    """A picture.

    Attributes:
        name: of its mask, below the folder, without the ending.
        pixels: grey levels, with the channels of the run's images.
        mask: class of each pixel, where it is known.
        grey: its colours were left out.
    """

    name: str
    pixels: UInt8[np.ndarray, "height width channels"]
    mask: UInt8[np.ndarray, "height width"] | None = None
    grey: bool = False


def draw(run: Finished, asked: SegmentSample) -> int:
    """Writes the masks and the picture that `train.sample` asks for; gives the exit status.

    Raises:
        DataError: there is no picture, or one cannot be read.
        UserError: the model's probabilities are not numbers, or a file cannot be written.
    """
    tiling = run.config.tiling(asked.tile, asked.overlap)
    classes, stream = classes_of(run), Stream(make_mesh(asked.mesh))
    if asked.images is None:
        found = _held_out(load_pairs(run.config.data))
    else:
        found = _of_folder(files_at(Path(asked.images), SUFFIXES, WANTED, "--images", apart=True), run.facts.shape[2])
    model, rows, count, grey = run.model(stream.mesh), [], 0, 0
    for picture in found:
        shares = shares_of(model, picture.pixels.astype(np.float32) * np.float32(2 / 255) - 1, tiling, stream)
        if not np.isfinite(shares).all():
            raise UserError(f"--run {asked.run}: the model's probabilities are not numbers: its weights are damaged")
        guesses, count, grey = np.argmax(shares, axis=-1), count + 1, grey + picture.grey
        _save_mask(Path(asked.out) / f"{picture.name}.png", guesses, classes)
        if len(rows) < SHOWN:
            rows.append(panels(picture, guesses))
    save_picture(asked.picture, pictures.sheet(rows), scale=1)
    told = f"; {without_colours(grey)}" if grey else ""
    print(f"{count:,} masks in {asked.out}, {len(rows)} of them shown in {asked.picture}{told}")
    return 0


def panels(picture: Pictured, guesses: np.ndarray) -> list[np.ndarray]:
    """The picture, its mask and mistakes where the mask is known, and its classes in colours."""
    shown = [picture.pixels, pictures.overlaid(picture.pixels, guesses)]
    if picture.mask is None:
        return shown
    known = pictures.overlaid(picture.pixels, picture.mask)
    return [shown[0], known, shown[1], pictures.mistakes(picture.pixels, picture.mask, guesses)]


def classes_of(run: Finished) -> list[MaskClass]:
    """The classes of a run.

    Raises:
        UserError: its file is missing, or was edited.
    """
    path = run.folder / NAMES
    try:
        rows = [MaskClass(tuple(row["value"]), row["name"]) for row in read_json(path)]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: must be a list of values and names of classes; was it edited?") from error
    if len(rows) != run.facts.classes:
        raise UserError(f"{path}: must have {run.facts.classes} classes: got {len(rows)}; was it edited?")
    return rows


def _of_folder(names: tuple[Path, list[str]], channels: int) -> Iterator[Pictured]:
    folder, files = names
    for name in files:
        pixels = read_picture(folder / name, None, hint=REPLACE)
        if grey := pixels.shape[2] > channels:
            pixels = as_grey(pixels)
        yield Pictured(name.rpartition(".")[0], np.repeat(pixels, channels // pixels.shape[2], axis=2), grey=grey)


def _held_out(pairs: Pairs) -> Iterator[Pictured]:
    for name, image, mask in zip(pairs.test.names, pairs.test.images, pairs.test.masks):
        yield Pictured(Path(name).stem, image, mask)


def _save_mask(path: Path, guesses: np.ndarray, classes: list[MaskClass]) -> None:
    from PIL import Image

    values = np.array([kind.value for kind in classes], np.uint8)[guesses]
    buffer = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(buffer, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path.parent}: {error.strerror}") from None
    write_atomically(path, lambda part: part.write_bytes(buffer.getvalue()))


def shown_of(model: Any, pairs: Pairs, tiling: Tiling, stream: Stream, count: int = SHOWN) -> list[list[np.ndarray]]:
    """Panels of the first held-out images."""
    rows = []
    for picture in list(_held_out(pairs))[:count]:
        guesses = np.argmax(shares_of(model, pairs.normalise(picture.pixels), tiling, stream), axis=-1)
        rows.append(panels(picture, guesses))
    return rows
