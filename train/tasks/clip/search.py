"""Search: the images whose features are nearest to those of texts or images, as a picture and a table."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..._errors import UsageError, UserError
from ..._files import write_text
from ...config.data import DataConfig
from ...data import load, save_picture
from ...data.files.listing import counted
from ...data.images.grid import to_uint8
from ...engine.recipes import Finished
from ...evaluators.examples import Examples, held_out_images
from ...evaluators.stream import Stream
from ...parallel import make_mesh
from ..classify.folder import SIDE, Pictures, read_pictures, shown
from ..sampling import at_most
from .opened import opened, texts_of_run
from .towers import image_of, text_of
from .words import encode_query

LINE, GAP = 14, 4
"""Pixels of a line of text, and between images."""


class Gallery(NamedTuple):
    """Images that are searched.

    Attributes:
        images: `image`, in [-1, 1].
        names: file, or number in the held-out part.
        about: caption or class; empty where there is none.
    """

    images: Examples
    names: list[str]
    about: list[str]


def search(asked: Any) -> int:
    """Writes what `train.search` is asked for; gives the exit status.

    Raises:
        UserError: a query or a picture cannot be read, or the model's features are not numbers.
        UsageError: the images are of another shape than the run's.
    """
    run = opened(asked.run, "--run")
    gallery, vocabulary = gallery_of(run, asked), texts_of_run(run)
    ids = [encode_query(vocabulary, text, run.facts.text) for text in asked.text]
    count = at_most("--n", asked.n, len(gallery.names), "images that are searched", usual=8)
    given = [_read(Path(file), run, "--image").pixels for file in asked.image]
    stream = Stream(make_mesh(asked.mesh))
    model = run.model(stream.mesh)
    queries = [stream.gather(text_of, model, Examples.of(text=np.stack(ids)))] if ids else []
    queries += [stream.gather(image_of, model, Examples.of(image=in_range(np.concatenate(given))))] if given else []
    scores = np.concatenate(queries) @ stream.gather(image_of, model, gallery.images).T
    if not np.isfinite(scores).all():
        raise UserError(f"--run {asked.run}: the model's features are not numbers: its weights are damaged")
    titles = [*asked.text, *(Path(file).name for file, found in zip(asked.image, given) for _ in found)]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    table = Path(asked.out).with_suffix(".csv")
    write_text(table, table_of(titles, scores, order, gallery))
    pictures = to_uint8(gallery.images.read(order.reshape(-1))["image"])
    best = np.take_along_axis(scores, order, axis=1)
    save_picture(asked.out, drawn(titles, pictures.reshape(*order.shape, *pictures.shape[1:]), best), scale=1)
    print(f"{order.size:,} images of {len(gallery.names):,} for {len(titles)} queries in {asked.out} and {table}")
    return 0


def gallery_of(run: Finished, asked: Any) -> Gallery:
    """The held-out images of the data, or the pictures of a folder.

    Raises:
        UsageError: known images have another shape than the run's.
        DataError: there is no picture, or one cannot be read.
    """
    data = run.config.data if asked.data is None else DataConfig(name=asked.data)
    data = dataclasses.replace(data, root=asked.root) if asked.root is not None else data
    if asked.data is not None and data.is_path and not data.is_npz:
        found = _read(Path(data.name).expanduser(), run, "--data")
        return Gallery(Examples.of(image=in_range(found.pixels)), found.names, [""] * len(found.names))
    dataset = load(data)
    if dataset.image_shape != run.facts.shape:
        height, width, channels = run.facts.shape
        raise UsageError(
            f"--data {data.name}: must have images of {height} x {width} x {channels}, as the run's: got "
            f"{' x '.join(map(str, dataset.image_shape))}; a folder of pictures is resized"
        )
    images = held_out_images(dataset)
    captions = dataset.captions.test if dataset.captions is not None else None
    about = captions or [dataset.class_names[label] for label in dataset.test_labels]
    return Gallery(images, list(map(str, range(images.size))), list(about))


def _read(path: Path, run: Finished, flag: str) -> Pictures:
    """Pictures of the run's size; a line has what was changed."""
    found = read_pictures(path, run.facts.shape, flag)
    if found.changed:
        print(f"{path}: {counted(len(found.names), 'picture')}{found.changed}")
    return found


def in_range(pixels: UInt8[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "n height width channels"]:
    """Pixels as images in [-1, 1]."""
    return pixels.astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def table_of(
    titles: list[str],
    scores: Float[np.ndarray, "queries images"],
    order: Int[np.ndarray, "queries n"],
    gallery: Gallery,
) -> str:
    """CSV of each query with its nearest images: rank, cosine, name, and what is known about it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "cosine", "image", "about"])
    for title, row, found in zip(titles, scores, order):
        for rank, number in enumerate(found.tolist(), 1):
            writer.writerow([title, rank, f"{row[number]:.6f}", gallery.names[number], gallery.about[number]])
    return text.getvalue()


def drawn(
    titles: list[str],
    pictures: UInt8[np.ndarray, "queries n height width channels"],
    scores: Float[np.ndarray, "queries n"],
) -> UInt8[np.ndarray, "grid_height grid_width 3"]:
    """A row of images for each query below its title, the cosine below each."""
    from PIL import Image, ImageDraw

    queries, count = scores.shape
    step, row = SIDE + GAP, SIDE + 2 * LINE + 2 * GAP
    canvas = Image.new("RGB", (count * step + GAP, queries * row), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (title, images, values) in enumerate(zip(titles, pictures, scores)):
        top = place * row
        draw.text((GAP, top + 1), _fitting(draw, title, count * step), fill="black")
        for column, (image, value) in enumerate(zip(images, values)):
            left = column * step + GAP
            canvas.paste(shown(image), (left, top + LINE))
            draw.text((left, top + LINE + SIDE), f"{value:.3f}", fill="black")
    return np.asarray(canvas)


def _fitting(draw: Any, text: str, width: int) -> str:
    """The start of a text that fits, in characters that the font has."""
    plain = text.encode("latin-1", "replace").decode("latin-1")
    while plain and draw.textlength(plain) > width:
        plain = plain[:-1]
    return plain
