"""Images of `train.sample` as files: one grid, a folder of single files, or an .npz."""

import itertools
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from eqxgen._files import part_of

from .._errors import UserError
from .._files import write_atomically, writing
from ..data import image_grid, save_picture
from ..data.images.grid import to_uint8

Pixels = UInt8[np.ndarray, "n height width channels"]


def write_images(
    out: str,
    batches: Iterable[Float[np.ndarray, "_ height width channels"]],
    labels: Int[np.ndarray, " images"],
    *,
    columns: int,
    seed: int,
) -> int:
    """Writes images in [-1, 1] whole or not at all; gives their number. A folder and an .npz take a batch at a time.

    Args:
        out: FOLDER/, a file .npz, or one of a picture for a grid.
        columns: of the grid.
        seed: in the names of single files.

    Raises:
        UserError: there is no image, or the file cannot be written.
        FloatingPointError: a value is NaN.
    """
    every = map(pixels, batches)
    first = next(every, None)  # before any file is made
    if first is None or not len(first):
        raise UserError(f"--out {out}: there is no image of the classes that were asked for")
    every, path = itertools.chain([first], every), Path(out)
    try:
        if out.endswith("/"):
            write_folder(path, every, labels, seed)
        elif path.suffix.lower() == ".npz":
            write_npz(path, every, labels, first.shape[1:])
        else:
            save_picture(path, image_grid(np.concatenate([*every]), columns))
    except (UserError, ValueError) as error:
        raise UserError(f"--out {error}") from None
    return len(labels)


def pixels(images: Float[np.ndarray, "n height width channels"]) -> Pixels:
    """Images in [-1, 1] as `0 ... 255`; values outside are clipped.

    Raises:
        FloatingPointError: a value is NaN.
    """
    if np.isnan(images).any():
        raise FloatingPointError("the model's images are not numbers: its weights are damaged")
    return to_uint8(images)


def write_folder(path: Path, batches: Iterable[Pixels], labels: Int[np.ndarray, " images"], seed: int) -> None:
    """A PNG of each image, with its number, class and seed in the name, and labels.csv of all. The folder has its name
    when all are in it.
    """
    from PIL import Image

    part = part_of(path)
    names = [f"{number:06d}-class-{label}-seed-{seed}.png" for number, label in enumerate(labels)]
    with writing(path):
        part.mkdir(parents=True)
        try:
            for name, image in zip(names, _each(batches), strict=True):
                Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(part / name)
            rows = [f"{name},{label}" for name, label in zip(names, labels)]
            (part / "labels.csv").write_text("\n".join(["file,label", *rows, ""]), encoding="utf-8")
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_npz(
    path: Path, batches: Iterable[Pixels], labels: Int[np.ndarray, " images"], shape: tuple[int, ...]
) -> None:
    """An .npz of `images`, uint8, and `labels`, which `--data.name` takes too; a batch is in memory at a time."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w") as archive:
            with archive.open("images.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for batch in batches:
                    file.write(batch.tobytes())
            with archive.open("labels.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, labels.astype(np.int32), allow_pickle=False)

    write_atomically(path, write)


def _each(batches: Iterable[Pixels]) -> Iterator[UInt8[np.ndarray, "height width channels"]]:
    for batch in batches:
        yield from batch
