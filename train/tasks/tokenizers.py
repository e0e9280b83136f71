"""Tokenizers of images: opened, kept beside a run, and applied to many images."""

import shutil
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from eqxgen.models import PixelTokenizer
from eqxgen.models.autoencoder import VQAutoencoder
from eqxgen.nn import MultiScaleVQ
from eqxgen.pretrained import to_pretrained

from .._errors import UserError
from .._files import write_atomically, writing
from ..data import Dataset
from ..data.encoded import IDS, Encoded
from ..data.files.lazy import Lazy
from ..engine.recipes import load
from ..evaluators.examples import Examples
from ..evaluators.stream import Stream
from ..parallel.processes import is_first
from ..run.weights import digest
from .encoded.encoders import MODEL, is_published, open_encoder
from .facts import TokenFacts

COPY, PUBLISHED = "tokenizer.safetensors", "tokenizer"
"""Copies in the folder of a run: of a run's tokenizer, and the folder of a published one."""
Shape = tuple[int, int, int]


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


class GridTokenizer(eqx.Module):
    """An autoencoder with a codebook as a tokenizer of images of one shape, row by row.

    Raises:
        ValueError: the images have other channels, or sides that the autoencoder's factor does not divide.
    """

    net: VQAutoencoder
    image_shape: Shape = eqx.field(static=True)

    def __check_init__(self):
        height, width, channels = self.image_shape
        if channels != self.net.channels or height % self.net.factor or width % self.net.factor:
            raise ValueError(
                f"is for images of {self.net.channels} channels whose sides {self.net.factor} divides: got "
                f"{self.image_shape} (height, width, channels)"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image_shape[0] // self.net.factor, self.image_shape[1] // self.net.factor

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def codes(self) -> int:
        """Number of codes."""
        return self.net.codes

    def encode(self, image: Float[Array, "height width channels"]) -> Int[Array, " tokens"]:
        """Ids of an image in [-1, 1]."""
        return jnp.ravel(self.net.encode(image))

    def decode(self, ids: Int[Array, " tokens"]) -> Float[Array, "height width channels"]:
        """The image of ids."""
        return self.net.decode(ids.reshape(self.grid))


def token_facts(images: Dataset | Encoded, tokenizer: Tokenizer) -> TokenFacts:
    """Facts of images as tokens, without the tokenizer's hash."""
    quantizer = getattr(tokenizer, "quantizer", None)
    own = {"scales": quantizer.scales, "code_dim": quantizer.dim} if isinstance(quantizer, MultiScaleVQ) else {}
    return TokenFacts(images.image_shape, images.num_classes, tokenizer.tokens, tokenizer.codes, **own)


def open_tokenizer(where: str, dataset: Dataset, folder: Path) -> Tokenizer:
    """The tokenizer that `--tokenizer` names. A run that has begun uses its own copy, see `keep_tokenizer`.

    Raises:
        UserError: there is none, it is damaged, or it is for images of another shape.
    """
    if where == "pixels":
        return PixelTokenizer(*dataset.image_shape, codes=dataset.levels)
    kept = _kept(folder)
    return tokenizer_at(where if kept is None else kept, dataset.image_shape, f"--tokenizer {where}", dataset.name)


def tokenizer_of_prepared(where: str, found: Encoded, folder: Path) -> Tokenizer:
    """The tokenizer of prepared tokens: the one that they name, or with `--tokenizer` the same elsewhere.

    Raises:
        UserError: there is none, or the tokens are of another.
    """
    where = found.tokenizer if where == "pixels" else where
    kept = _kept(folder)
    tokenizer = tokenizer_at(where if kept is None else kept, found.image_shape, f"--tokenizer {where}", found.name)
    if (sha256 := digest(tokenizer)) != found.sha256:
        raise UserError(
            f"--tokenizer {where}: the tokens of {found.name} were made by another, {found.tokenizer} (SHA-256 "
            f"{found.sha256}, and this has {sha256}): give that one, or prepare the tokens again"
        )
    return tokenizer


def tokenizer_at(where: str | Path, shape: Shape, flag: str, name: str) -> Tokenizer:
    """The tokenizer of a run or of a published folder, for images of a shape.

    Args:
        flag: with its value, for errors.
        name: of the images, for errors.
    """
    path = Path(where).expanduser()
    found = (
        as_tokenizer(open_encoder(path, flag.split()[0]), shape, flag)
        if is_published(path)
        else load_tokenizer(path, flag)
    )
    if found.image_shape != shape:
        raise UserError(
            f"{flag}: is for images of {found.image_shape} (height, width, channels), but those of {name} are {shape}: "
            "train one on this data, or give the same --data.image-size"
        )
    return found


def as_tokenizer(model: Any, shape: Shape, flag: str) -> Tokenizer:
    """A model that makes codes of images, as a tokenizer of those of a shape.

    Raises:
        UserError: it is none, or for other images.
    """
    try:
        found = GridTokenizer(model, shape) if isinstance(model, VQAutoencoder) else model
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from None
    if not isinstance(found, Tokenizer):
        raise UserError(f"{flag}: must be a tokenizer or a KL autoencoder of images: got {type(model).__name__}")
    return found


def keep_tokenizer(where: str, tokenizer: Tokenizer, folder: Path) -> None:
    """Copies the tokenizer into the run's folder, so that the run can be sampled and resumed without the other."""
    if isinstance(tokenizer, PixelTokenizer) or _kept(folder) is not None:
        return
    path = Path(where).expanduser()
    if not is_published(path):
        write_atomically(folder / COPY, lambda part: shutil.copyfile(run_file(path), part))
        return
    grid = isinstance(tokenizer, GridTokenizer)
    with writing(folder / PUBLISHED):
        to_pretrained(tokenizer.net if grid else tokenizer, folder / PUBLISHED, "autoencoder_vq" if grid else "vqgan")


def tokenizer_of_run(folder: Path, where: str, facts: TokenFacts) -> Tokenizer:
    """The tokenizer of a run that has begun.

    Args:
        where: its `--tokenizer`.
    """
    kept = _kept(folder)
    if kept is None and where == "pixels" and facts.tokenizer is None:
        return PixelTokenizer(*facts.shape, codes=facts.codes)
    if kept is None:
        raise UserError(f"--run {folder}: has no {COPY}, which the run began with: put it back, or train again")
    found = tokenizer_at(kept, facts.shape, f"--run {folder}", "the run")
    check_tokenizer(found, facts, str(kept))
    return found


def check_tokenizer(tokenizer: Tokenizer, facts: TokenFacts, where: str) -> None:
    """Raises `UserError` where a tokenizer is not the one that a run began with."""
    if facts.tokenizer is not None and (sha256 := digest(tokenizer)) != facts.tokenizer:
        raise UserError(
            f"{where}: is not the tokenizer that the run began with (SHA-256 {facts.tokenizer}, now {sha256}): "
            "put it back"
        )


def _kept(folder: Path) -> Path | None:
    """The copy of the tokenizer that a run has begun with."""
    return next((path for path in (folder / COPY, folder / PUBLISHED) if path.exists()), None)


def load_tokenizer(run: Path, flag: str) -> Tokenizer:
    """The tokenizer of a run, for images of any shape.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = run_file(run)
    if not path.is_file():
        raise UserError(
            f"{flag}: has no {MODEL}: give the folder of a finished train.vqgan run, a published tokenizer, or pixels"
        )
    return load(path, "vqgan", where=flag)


def run_file(run: Path) -> Path:
    """The file of a run's tokenizer, or the path itself where it is a file."""
    return run / MODEL if run.is_dir() else run


def tokenized(dataset: Dataset, tokenizer: Tokenizer, where: str, mesh: Mesh, *, mirror: bool) -> Encoded:
    """The tokens of a data set in memory, made by all devices of a mesh; every process makes the call.

    Args:
        where: --tokenizer.
        mirror: makes those of the mirror images too.
    """
    images = [
        examples(dataset, dataset.train_images, mirrored=side) for side in ((False, True) if mirror else (False,))
    ]
    stream = Stream(mesh, say=print if is_first() else lambda text: None)
    ids = [stream.gather(ids_of, tokenizer, each) for each in (*images, examples(dataset, dataset.test_images))]
    return Encoded(
        name=dataset.name,
        kind=IDS,
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
        levels=dataset.levels,
        copies=tuple(ids[:-1]),
        train_labels=dataset.train_labels,
        test=ids[-1],
        test_labels=dataset.test_labels,
        tokenizer=where,
        sha256=digest(tokenizer) or "",
        statistics=None,
        codes=tokenizer.codes,
        origin={},
    )


def examples(
    dataset: Dataset,
    images: UInt8[np.ndarray, "n height width channels"] | Lazy,
    rows: Int[np.ndarray, " rows"] | None = None,
    *,
    mirrored: bool = False,
    batch: int = 500,
) -> Examples:
    """Images in [-1, 1] of a data set, or their mirror images.

    Args:
        rows: of the images; by default all.
        batch: at a time, over all devices.
    """
    at = np.arange(len(images)) if rows is None else rows

    def read(numbers: Int[np.ndarray, " batch"]) -> dict[str, np.ndarray]:
        part = images[at[numbers]]
        return {"image": dataset.normalise(part[:, :, ::-1] if mirrored else part)}

    return Examples(len(at), read, batch)


def ids_of(tokenizer: Tokenizer, example: dict[str, Array]) -> Int[Array, " tokens"]:
    """The tokens of an example's image."""
    return tokenizer.encode(example["image"])
