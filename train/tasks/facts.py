"""Facts of the data that a model's shapes need: typed, known on paper and from data alike, kept in config.json."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from ..config.data import DataConfig
from ..config.known import KNOWN

Self = TypeVar("Self", bound="Facts")
_NAMES = {"shape": "image_shape"}  # names of fields in config.json, where they differ
_MEANING = {
    int: "a whole number",
    tuple[int, int, int]: "three whole numbers",
    tuple[int, int, int] | None: "three whole numbers or null",
    tuple[float, ...]: "numbers",
    tuple[int, ...]: "whole numbers",
    int | None: "a whole number or null",
    str | None: "text or null",
    Mapping[str, Any] | None: "an object or null",
}


def rare(default: Any) -> Any:
    """A field that config.json has only where it is not the default."""
    return dataclasses.field(default=default, metadata={"rare": True})


class Facts:
    """Base of the facts of a kind of data: dataclasses that config.json holds."""

    def to_record(self) -> dict[str, Any]:
        """The facts as config.json has them."""
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        shown = [field for field in fields if not (field.metadata and getattr(self, field.name) == field.default)]
        values = {field.name: getattr(self, field.name) for field in shown}
        plain = lambda value: list(value) if isinstance(value, tuple) else value
        return {_NAMES.get(name, name): plain(value) for name, value in values.items()}

    @classmethod
    def from_record(cls: type[Self], values: Mapping[str, Any]) -> Self:
        """The facts of a config.json; those that a run of an older version lacks have their defaults.

        Raises:
            ValueError: one without a default is missing, or one is of another type.
        """
        given: dict[str, Any] = {}
        for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
            name = _NAMES.get(field.name, field.name)
            if name in values:
                value = tuple(values[name]) if isinstance(values[name], list) else values[name]
                if not _is(value, field.type):
                    raise ValueError(f"facts.{name} must be {_MEANING[field.type]}: got {values[name]!r:.60}")
                given[field.name] = value
            elif field.default is dataclasses.MISSING:
                raise ValueError(f"facts.{name} must be given: got only {', '.join(values) or 'none'}")
        return cls(**given)


@dataclasses.dataclass(frozen=True)
class ImageFacts(Facts):
    """Facts of labelled images."""

    shape: tuple[int, int, int]
    """Height, width and channels."""
    classes: int
    """Number of labels."""
    levels: int = 256
    """Number of grey levels."""

    def __str__(self) -> str:
        return f"images of {' x '.join(map(str, self.shape))}"


@dataclasses.dataclass(frozen=True)
class ClassifierFacts(ImageFacts):
    """Facts of labelled images, and of the MAGE whose encoder classifies them."""

    mage: Mapping[str, Any] | None = rare(None)
    """What the files of the model and of its tokenizer, where it has one, say of themselves: `model`, `tokenizer`."""


@dataclasses.dataclass(frozen=True)
class LatentFacts(ImageFacts):
    """Facts of labelled images, and of the latents of them that a model is of."""

    latent_shape: tuple[int, int, int] | None = rare(None)
    """Height, width and channels of a latent; None for a model of pixels."""
    latent_mean: tuple[float, ...] = rare(())
    """What is subtracted from each channel of a latent."""
    latent_deviation: tuple[float, ...] = rare(())
    """What each channel is divided by after that."""
    statistics: str | None = rare(None)
    """SHA-256 of the two."""
    autoencoder: str | None = rare(None)
    """Folder of the autoencoder of prepared latents."""
    tokenizer: str | None = rare(None)
    """SHA-256 of that autoencoder's weights."""


@dataclasses.dataclass(frozen=True)
class TokenFacts(Facts):
    """Facts of labelled images as tokens."""

    shape: tuple[int, int, int]
    """Height, width and channels of the images."""
    classes: int
    """Number of labels."""
    tokens: int
    """Tokens of one image."""
    codes: int
    """Size of the tokenizer's codebook."""
    tokenizer: str | None = rare(None)
    """SHA-256 of the tokenizer's weights; None for pixels, and in older runs."""
    scales: tuple[int, ...] = rare(())
    """Sides of the token maps of a tokenizer of several scales."""
    code_dim: int = rare(0)
    """Width of its codes."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens: a pixel's channels side by side, a row alone where they form no grid."""
        height, width, channels = self.shape
        if self.tokens == height * width * channels:
            return height, width * channels
        factor = math.isqrt(max(1, height * width // max(1, self.tokens)))
        rows, columns = height // factor, width // factor
        return (rows, columns) if rows * columns == self.tokens else (1, self.tokens)

    def __str__(self) -> str:
        return f"images of {' x '.join(map(str, self.shape))}"


@dataclasses.dataclass(frozen=True)
class CaptionFacts(TokenFacts):
    """Facts of captioned images as tokens."""

    _: dataclasses.KW_ONLY
    vocab: int
    """Size of the texts' vocabulary, without their end; number of ids of a frozen encoder."""
    text: int
    """Tokens of a text, the end included."""
    vocabulary: str | None = rare(None)
    """SHA-256 of the vocabulary; None on paper."""
    text_encoder: str | None = rare(None)
    """SHA-256 of the frozen encoder's weights; None on paper, and without one."""
    text_dim: int | None = rare(None)
    """Width of its states."""
    text_end: int | None = rare(None)
    """Its id of the end of a text."""
    low_tokens: int = rare(0)
    """Low-resolution tokens of one image, beside its text; 0 for a first stage."""
    low_codes: int = rare(0)
    """Size of their tokenizer's codebook."""
    low_tokenizer: str | None = rare(None)
    """SHA-256 of its weights; None on paper."""

    @property
    def end(self) -> int:
        """Id that texts are filled up with."""
        return self.vocab if self.text_end is None else self.text_end

    @property
    def own_vocab(self) -> int | None:
        """Size of the vocabulary of the model's own encoder; None with a frozen one."""
        return self.vocab if self.text_dim is None else None


@dataclasses.dataclass(frozen=True)
class PairFacts(ImageFacts):
    """Facts of images with texts."""

    _: dataclasses.KW_ONLY
    vocab: int
    """Number of ids of the texts, their end included."""
    text: int
    """Tokens of a text, the end included."""
    end: int
    """Id that texts are filled up with."""
    vocabulary: str | None = rare(None)
    """SHA-256 of the vocabulary; None on paper."""


@dataclasses.dataclass(frozen=True)
class AudioFacts(Facts):
    """Facts of recordings and of their spectrograms."""

    rate: int
    """Samples a second."""
    hop: int
    """Samples of a frame."""
    mels: int
    """Bands of a frame."""

    def __str__(self) -> str:
        return f"sounds of {self.rate:,} samples a second, {self.mels} mel bands for each {self.hop} samples"


@dataclasses.dataclass(frozen=True)
class TextFacts(Facts):
    """Facts of text as tokens."""

    vocab: int
    """Size of the vocabulary."""
    context: int
    """Tokens of a window."""
    vocabulary: str | None = None
    """SHA-256 of the vocabulary; None where the data are ids alone."""

    def __str__(self) -> str:
        return f"windows of {self.context} tokens of a vocabulary of {self.vocab:,}"


@dataclasses.dataclass(frozen=True)
class LabelFacts(TextFacts):
    """Facts of texts with labels, as tokens."""

    _: dataclasses.KW_ONLY
    classes: int
    """Number of classes; 1 of grades."""

    def __str__(self) -> str:
        what = "grades" if self.classes == 1 else f"{self.classes} classes"
        return f"texts of {self.context} tokens of a vocabulary of {self.vocab:,}, with {what}"


@dataclasses.dataclass(frozen=True)
class TextPairFacts(Facts):
    """Facts of pairs of texts as tokens of one table."""

    vocab: int
    """Rows of the table: the padding, the end of a text, and the tokens of both texts."""
    source: int
    """Tokens of a source in training, its end included."""
    target: int
    """Tokens of a target in training, its end included."""
    vocabulary: str | None = None
    """SHA-256 of the vocabulary; None on paper."""

    def __str__(self) -> str:
        return f"pairs of {self.source} and {self.target} tokens of a table of {self.vocab:,}"


def _is(value: Any, kind: Any) -> bool:
    if kind == tuple[float, ...]:
        return isinstance(value, tuple) and all(type(part) in (int, float) for part in value)
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(type(part) is int for part in value)
    if kind == Mapping[str, Any] | None:
        return value is None or isinstance(value, dict)
    if kind == tuple[int, int, int] | None and value is None:
        return True
    if kind in (tuple[int, int, int], tuple[int, int, int] | None):
        return isinstance(value, tuple) and len(value) == 3 and all(type(part) is int for part in value)
    if kind in (int, int | None):
        return type(value) is int or (value is None and kind is not int)
    return value is None or isinstance(value, str)


def image_facts(data: DataConfig) -> ImageFacts:
    """Facts of a known set without reading it; of a path, those of colour images of --data.image-size (256 by default)
    with ImageNet's 1,000 classes.
    """
    if known := KNOWN.get(data.name):
        height, width, channels = known.shape
        return ImageFacts((height, width, channels), len(known.classes), known.levels)
    size = data.image_size or 256
    return ImageFacts((size, size, 3), 1000)
