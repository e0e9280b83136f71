"""Training data of models of image tokens: tokens made at the start, or prepared ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..._errors import DataError
from ...data import Dataset, load
from ...data.encoded import IDS, Encoded, is_encoded, read_encoded
from ...parallel import make_mesh
from ..tokenizers import Tokenizer, open_tokenizer, tokenized, tokenizer_of_prepared
from .latents import refuse_others


class Source(NamedTuple):
    """Training data of a recipe of image tokens.

    Attributes:
        tokens: of the images.
        tokenizer: that made them.
        where: its folder, or pixels.
        images: the real images; None where prepared tokens have lost them.
        lacks: the reason for that.
        fingerprint: SHA-256 of the data.
        texts: what was read of the captions; None where they were not asked for.
        folder: of the run.
    """

    tokens: Encoded
    tokenizer: Tokenizer
    where: str
    images: Dataset | None
    lacks: str
    fingerprint: str
    texts: Any = None
    folder: Path = Path()


def opened(
    config: Any,
    folder: Path,
    read: Callable[[Dataset], Any] | None = None,
    fits: Callable[[Dataset | Encoded, Tokenizer], None] = lambda images, tokenizer: None,
) -> Source:
    """The tokens that `--data` and `--tokenizer` name.

    Args:
        folder: of the run.
        read: takes what a run needs of the captions, before any token is made.
        fits: raises an error for a tokenizer that the model cannot take, before any token is made.

    Raises:
        DataError: the data cannot be read, or captions are asked for and missing.
        UserError: the tokenizer cannot be read; or the tokens are of another one, or of another than the run's.
    """
    if is_encoded(config.data, IDS):
        if read is not None:
            hint = "give the images that they were made of"
            raise DataError(config.data.name, "images with captions", "prepared tokens, which have none", hint)
        return _prepared(config, folder, fits)
    dataset = load(config.data, captions=read is not None).enough_for(config.batch_size)
    texts = None if read is None else read(dataset)
    tokenizer = open_tokenizer(config.tokenizer, dataset, folder)
    fits(dataset, tokenizer)
    flip = config.data.augment.flip
    tokens = tokenized(dataset, tokenizer, config.tokenizer, make_mesh(config.mesh), mirror=flip)
    return Source(tokens, tokenizer, config.tokenizer, dataset, "", dataset.fingerprint, texts, folder)


def _prepared(config: Any, folder: Path, fits: Callable[[Encoded, Tokenizer], None]) -> Source:
    found = read_encoded(config.data, IDS).check(config.data, config.batch_size)
    grid = {"tokens": found.copies[0].shape[1], "codes": found.codes, "tokenizer": found.sha256}
    refuse_others(folder, config.data.name, grid)
    tokenizer = tokenizer_of_prepared(config.tokenizer, found, folder)
    fits(found, tokenizer)
    where = found.tokenizer if config.tokenizer == "pixels" else config.tokenizer
    return Source(found, tokenizer, where, *found.images_or_reason(config.data.root), found.fingerprint)
