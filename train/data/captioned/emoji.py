"""Emoji in two drawing styles, with their names and keywords."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..._errors import DataError
from ...config.known import KNOWN
from ..files.known_files import KnownFiles
from ..files.npz import Npz
from ..images.dataset import Captions, Dataset

COLUMNS = 7
"""Of emoji.tsv: code points, short name, short names, name, category, subcategory, keywords."""


def load_emoji64(files: KnownFiles) -> Dataset:
    """1,636 emoji on white, as images of 64x64x3: Noto's to train on, Twemoji's of the same emoji held out.

    Captions are the name in lower case and the keywords; classes are the categories. The two parts have the same emoji
    and captions in different drawings, row by row, so that a score on the held-out part is of the other style.

    Raises:
        DataError: a file is missing or not the published one.
    """
    path, table = files.read("emoji64/emoji.tsv")
    rows = [line.split("\t") for line in table.decode().splitlines()[1:]]
    if any(len(row) != COLUMNS for row in rows):
        raise DataError(path, f"rows of {COLUMNS} columns", "another number", "put the published file there")
    classes = KNOWN["emoji64"].classes
    labels = np.asarray([classes.index(row[4]) for row in rows], np.int32)
    texts = tuple(f"{row[3].lower()}: {row[6].replace('_', ' ')}" for row in rows)
    google, twitter = (_on_white(*files.read(f"emoji64/{style}.npz")) for style in ("google", "twitter"))
    return Dataset("emoji64", google, labels, twitter, labels, classes, captions=Captions(texts, texts))


def _on_white(path: Path, data: bytes) -> UInt8[np.ndarray, "n height width 3"]:
    pixels = Npz(path, io.BytesIO(data)).read("images", (4,), "u").astype(np.uint16)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
