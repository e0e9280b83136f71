"""Pictures of a trained classifier: confusion matrix, attention of a transformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float, UInt8

from eqxgen.metrics import Confusion

from ..._files import write_text
from ...data import Dataset, image_grid, save_picture
from ...evaluators.examples import held_out_images
from ...evaluators.stream import Stream
from ...parallel.processes import is_first
from .. import images, labels
from . import nets

CELL = 40
"""Pixels of a cell of a confusion matrix with numbers."""
NUMBERED = 32
"""Classes up to which the cells have numbers and the classes their names."""
SHOWN = 16
"""Images of the picture of attention, and half as many in a row."""


def write_confusion(model: Any, dataset: Dataset, stream: Stream, folder: Path) -> None:
    """Writes confusion.csv, counts of held-out images by label (rows) and guess (columns), and confusion.png.

    Guesses that are not numbers are left out.
    """
    guesses = labels.guessed(model, held_out_images(dataset), stream)
    known = guesses >= 0
    counts = Confusion.of(dataset.num_classes).update(guesses[known], dataset.test_labels[known]).counts.astype(int)
    if is_first():
        names = [_quoted(name) for name in dataset.class_names]
        rows = [",".join(["label", *names]), *(",".join([name, *map(str, row)]) for name, row in zip(names, counts))]
        write_text(folder / "confusion.csv", "\n".join([*rows, ""]))
        save_picture(folder / "confusion.png", drawn_confusion(counts, dataset.class_names), scale=1)


def drawn_confusion(
    counts: np.ndarray, names: Sequence[str], cell: int = CELL
) -> UInt8[np.ndarray, "height width channels"]:
    """Counts of (label, guess) as shades of their share of the label, right ones blue and wrong ones red; with numbers
    and names for up to `NUMBERED` classes.
    """
    from PIL import Image, ImageDraw

    classes = len(counts)
    if classes > NUMBERED:
        return _shades(counts).repeat(max(1, 512 // classes), 0).repeat(max(1, 512 // classes), 1)
    margin = 2 * cell
    side = margin + classes * cell
    canvas = np.full((side, side, 3), 255, np.uint8)
    canvas[margin:, margin:] = _shades(counts).repeat(cell, 0).repeat(cell, 1)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for row in range(classes):
        middle = margin + row * cell + cell // 2
        draw.text((margin - 4, middle), names[row][:12], fill="black", anchor="rm")
        draw.text((middle, margin - 4), names[row][:6], fill="black", anchor="mb")
        for column in range(classes):
            if counts[row, column]:
                at = margin + column * cell + cell // 2, middle
                dark = counts[row, column] > counts[row].sum() / 2
                draw.text(at, str(counts[row, column]), fill="white" if dark else "black", anchor="mm")
    draw.text((margin // 2, margin // 2), "label / guess", fill="black", anchor="mm")
    return np.asarray(picture)


def _shades(counts: np.ndarray) -> UInt8[np.ndarray, "classes classes 3"]:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right, wrong = np.array([31, 91, 170]), np.array([200, 40, 40])
    colour = np.where(np.eye(len(counts), dtype=bool)[..., None], right, wrong)
    strength = np.where(np.eye(len(counts), dtype=bool), share, np.sqrt(share))[..., None]
    return np.rint(255 + strength * (colour - 255)).astype(np.uint8)


def write_attention(model: Any, dataset: Dataset, stream: Stream, folder: Path) -> None:
    """Writes attention.png: rows of held-out images, each above the attention of the last block to its patches, mean
    over the heads and bright where it is largest.
    """
    examples = held_out_images(dataset).first(SHOWN)
    maps = stream.gather(attention_of, model, examples)
    pictures = examples.read(np.arange(examples.size))["image"]
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    scaled = 2 * (maps - low) / np.maximum(high - low, 1e-12) - 1
    factor = pictures.shape[1] // maps.shape[1], pictures.shape[2] // maps.shape[2]
    heat = scaled.repeat(factor[0], axis=1).repeat(factor[1], axis=2)[..., None]
    columns = min(SHOWN // 2, len(pictures))
    both = images.rows_in_turn(pictures, np.broadcast_to(heat, pictures.shape), columns)
    if is_first():
        save_picture(folder / "attention.png", image_grid(dataset.denormalise(both), columns))


def attention_of(model: Any, example: dict[str, Array]) -> Float[Array, "rows columns"]:
    """Attention of a released transformer's last block to the patches of one image, mean over the heads."""
    import jax.numpy as jnp

    image = example["image"]
    if isinstance(model, nets.Normalised):
        image = nets.normalised(image, model.mean, model.deviation)
    return jnp.mean(nets.inner(model).attention(image)[-1], axis=0)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name
