"""Pictures of a folder with the classes that a run gives them: a picture and a table."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ..._errors import DataError, UserError
from ..._files import read_json, write_text
from ...config.known import KNOWN
from ...data import save_picture
from ...data.files.listing import files_at
from ...data.images.picture import REPLACE, SUFFIXES, read_picture
from ...engine.recipes import Finished
from ...evaluators.examples import Examples
from ...evaluators.labels import logits_of
from ...evaluators.stream import Stream
from ...parallel import make_mesh
from ..sampling import at_most
from .asked import NAMES, ClassifierSample

SHOWN, ROW, SIDE, LINE = 64, 8, 96, 14
"""Pictures that are shown, in a row, and pixels of a shown one and of a line of text."""

WANTED = "a picture or a folder of pictures (PNG, JPEG, WebP, ...)"


class Pictures(NamedTuple):
    """Pictures of a run's size.

    Attributes:
        names: of their files, below the folder.
        pixels: grey levels.
        changed: numbers of those that were resized, and whose colours were left out, for a line; or empty.
    """

    names: list[str]
    pixels: UInt8[np.ndarray, "n height width channels"]
    changed: str


def classify_folder(run: Finished, asked: ClassifierSample) -> int:
    """Writes the table and the picture that `train.sample --images` asks for; gives the exit status.

    Raises:
        DataError: there is no picture, or one cannot be read.
        UserError: the model's logits are not numbers, or a file cannot be written.
    """
    names = class_names(run)
    top = at_most("--top", asked.top, len(names), "classes of the run", usual=3)
    stream = Stream(make_mesh(asked.mesh))
    found = read_pictures(Path(str(asked.images)), run.facts.shape)
    image = found.pixels.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    logits = stream.gather(logits_of, run.model(stream.mesh), Examples.of(image=image)).astype(np.float64)
    if not np.isfinite(logits).all():
        raise UserError(f"--run {asked.run}: the model's logits are not numbers: its weights are damaged")
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    table = Path(asked.out).with_suffix(".csv")
    write_text(table, table_of(found.names, shares, names, top))
    save_picture(Path(asked.out), captioned(found.pixels[:SHOWN], shares[:SHOWN], names), scale=1)
    more = f"; {asked.out} has the first {SHOWN}" if len(found.names) > SHOWN else ""
    print(f"{len(found.names):,} pictures{found.changed} in {table} and {asked.out}{more}")
    return 0


def read_pictures(path: Path, shape: tuple[int, int, int], flag: str = "--images") -> Pictures:
    """A picture, or all below a folder, of a shape: the shorter side resized and the centre cut out where they are of
    another, grey where the shape has one channel.

    Raises:
        DataError: there is no picture, or one cannot be read; a shape that is not square needs pictures of that size.
    """
    folder, names = files_at(path, SUFFIXES, WANTED, flag)
    pixels, resized, grey = [], 0, 0
    for name in names:
        file = folder / name
        picture = read_picture(file, None, hint=REPLACE)
        if picture.shape[:2] != shape[:2]:
            if shape[0] != shape[1]:
                got = f"{picture.shape[0]} x {picture.shape[1]}"
                raise DataError(file, f"a picture of {shape[0]} x {shape[1]}, as the run's", got, REPLACE)
            picture, resized = read_picture(file, shape[0], hint=REPLACE), resized + 1
        if picture.shape[2] > shape[2]:
            picture, grey = as_grey(picture), grey + 1
        pixels.append(np.broadcast_to(picture, shape))
    told = [f"{resized:,} resized to {shape[0]} x {shape[1]}"] if resized else []
    told += [without_colours(grey)] if grey else []
    return Pictures(names, np.stack(pixels), f" ({', '.join(told)})" if told else "")


def class_names(run: Finished) -> list[str]:
    """Names of the classes of a run; their numbers where it keeps none."""
    if (run.folder / NAMES).is_file():
        names = read_json(run.folder / NAMES)
        if isinstance(names, list) and len(names) == run.facts.classes:
            return [str(name) for name in names]
    known = KNOWN.get(run.config.data.name)
    fits = known is not None and len(known.classes) == run.facts.classes
    return list(known.classes) if known is not None and fits else list(map(str, range(run.facts.classes)))


def table_of(files: list[str], shares: Float[np.ndarray, "n classes"], names: list[str], top: int) -> str:
    """CSV of each file with its most probable classes: number, name and probability of each."""
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    endings = ["", *(f"_{place}" for place in range(2, top + 1))]
    writer.writerow(["file", *(f"{word}{end}" for end in endings for word in ("label", "name", "probability"))])
    for file, row, chosen in zip(files, shares, order):
        writer.writerow([file, *(cell for k in chosen for cell in (int(k), names[k], f"{row[k]:.6f}"))])
    return text.getvalue()


def captioned(
    pixels: UInt8[np.ndarray, "n height width channels"], shares: Float[np.ndarray, "n classes"], names: list[str]
) -> UInt8[np.ndarray, "grid_height grid_width 3"]:
    """A grid of pictures, each above its class and the probability of it."""
    from PIL import Image, ImageDraw

    columns = min(ROW, len(pixels))
    rows = -(-len(pixels) // columns)
    canvas = Image.new("RGB", (columns * (SIDE + 4), rows * (SIDE + LINE + 4)), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (image, row) in enumerate(zip(pixels, shares)):
        left, top = place % columns * (SIDE + 4) + 2, place // columns * (SIDE + LINE + 4) + 2
        canvas.paste(shown(image), (left, top))
        best = int(np.argmax(row))
        draw.text((left, top + SIDE), f"{names[best][:10]} {100 * row[best]:.0f} %", fill="black")
    return np.asarray(canvas)


def shown(image: UInt8[np.ndarray, "height width channels"]) -> Any:
    """A Pillow image of at most `SIDE` pixels, enlarged by a whole number where it is smaller."""
    from PIL import Image

    found = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8))
    found.thumbnail((SIDE, SIDE)) if max(found.size) > SIDE else None
    factor = max(SIDE // max(found.size), 1)
    return found.resize((found.width * factor, found.height * factor), Image.Resampling.NEAREST)


def without_colours(count: int) -> str:
    """Words for pictures of which the run takes grey levels alone."""
    return f"{count:,} without their colours"


def as_grey(picture: Any) -> UInt8[np.ndarray, "height width 1"]:
    """Grey levels of a picture in colours."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).convert("L"))[..., None]
