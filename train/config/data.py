"""Options of the data and its augmentation. Imports nothing heavy, so that `--help` is immediate."""

import dataclasses
import difflib
import os
from pathlib import Path
from typing import ClassVar, Literal

from .known import IMAGES, KNOWN, TEXTS
from .options import option


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of training images.

    Raises:
        ValueError: a value is out of its range.
    """

    flip: bool = False
    """Mirror half of the images."""

    crop: Literal["none", "padded", "resized"] = "none"
    """padded: a window of the image's size in the padded image; resized: a window of any size, resized to the image's.
    """

    pad: int = 4
    """Padding of a padded crop, in pixels."""

    padding: Literal["reflect", "zeros"] = "reflect"
    """Content of the padding."""

    smallest: float = 0.08
    """Smallest area of a resized crop, as a fraction of the image's."""

    brightness: float = 0.0
    """Largest relative change of the brightness."""

    contrast: float = 0.0
    """Largest relative change of the contrast."""

    saturation: float = 0.0
    """Largest relative change of the saturation."""

    hue: float = 0.0
    """Largest rotation of the hue, as a fraction of the circle."""

    operations: int = 0
    """Number of RandAugment operations; 0: none."""

    magnitude: int = 9
    """Strength of RandAugment, from 0 to 30."""

    def __post_init__(self):
        ranges = {
            "pad": (1, 4096),
            "smallest": (0.0, 1.0),
            "hue": (0.0, 0.5),
            "operations": (0, 16),
            "magnitude": (0, 30),
        }
        ranges |= dict.fromkeys(("brightness", "contrast", "saturation"), (0.0, 1.0))
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"data.augment.{name} must be between {low} and {high}: got {getattr(self, name)}")

    @property
    def jitter(self) -> bool:
        """True where colours change at random."""
        return bool(self.brightness or self.contrast or self.saturation or self.hue)

    @property
    def colours(self) -> bool:
        """True where pixel values change, and not only their places."""
        return self.jitter or self.operations > 0

    @property
    def beyond_flip(self) -> bool:
        """True where there is more than mirror images."""
        return self.colours or self.crop != "none"


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Training data, and the folder that has them.

    Raises:
        ValueError: `name` is neither a known set nor a path, or a text is empty.
    """

    KNOWN: ClassVar[tuple[str, ...]] = ()
    SUFFIXES: ClassVar[tuple[str, ...]] = ()

    name: str = option("", first=True)
    """A known set, or a path."""

    root: str | None = option(None, free=True, first=True)
    """Folder of the known sets, each in its own. Default: $EQXGEN_DATA, else ~/.cache/eqxgen/data, where they are
    downloaded.
    """

    timeout: float = option(60.0, free=True)
    """Seconds without an example until the run ends with an error; a line names the source after 4 s."""

    skip_broken: bool = False
    """Leave out pictures or texts of a folder that cannot be read, in place of an error; a line names them."""

    changed: bool = option(False, free=True)
    """Resume although the data are not those that the run was begun with."""

    def __post_init__(self):
        known = ", ".join(self.KNOWN)
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"data.timeout must be positive and finite: got {self.timeout}")
        if not self.name.strip() or "\0" in self.name:
            raise ValueError(f"data.name must be one of {known}, or a path: got {self.name!r}")
        if self.name not in self.KNOWN and not self.is_path:
            near = difflib.get_close_matches(self.name, self.KNOWN, n=1)
            hint = f"did you mean {near[0]}? A" if near else "a"
            raise ValueError(
                f"data.name must be one of {known}, or a path: got {self.name!r}; {hint} path is written ./{self.name}"
            )
        if self.root is not None and (not self.root.strip() or "\0" in self.root):
            raise ValueError(f"data.root must be a folder: got {self.root!r}; leave it out to use the cache folder")

    @property
    def is_path(self) -> bool:
        """True where `name` is a path and not the name of a known set."""
        marked = self.name.startswith((".", "~")) or any(mark in self.name for mark in "/\\")
        return self.name not in self.KNOWN and (marked or self.name.lower().endswith(self.SUFFIXES))


@dataclasses.dataclass(frozen=True)
class TextConfig(SourceConfig):
    """Training text and its tokens.

    Raises:
        ValueError: as `SourceConfig`; `vocab` or `held_out` is out of its range.
    """

    KNOWN: ClassVar[tuple[str, ...]] = TEXTS
    SUFFIXES: ClassVar[tuple[str, ...]] = (".txt", ".text", ".md", ".npy", ".bin")

    name: str = option("tiny_shakespeare", first=True)
    """tiny_shakespeare; or a path: a text file, a folder of them (./books), a folder that `python -m train.data
    prepare` wrote, or a file of token ids (.npy or .bin), which needs --data.vocab."""

    tokenizer: str = option("chars", first=True)
    """chars: the characters of the text; bytes; bpe-4096: as many byte pairs, learnt from the text; or a path: a
    tokenizer.json, a folder with GPT-2's vocab.json and merges.txt, or a vocabulary.json of another run."""

    vocab: int | None = None
    """Size of the vocabulary of a file of ids."""

    held_out: float = 0.1
    """Fraction of the text, at its end, held out from training."""

    keep_newlines: bool = option(False, free=True)
    """Leave line ends CR LF and CR as they are; by default they become LF, as when Python reads text."""

    def __post_init__(self):
        super().__post_init__()
        if self.vocab is not None and not 2 <= self.vocab <= 2**32:
            raise ValueError(f"data.vocab must be from 2 to 2**32: got {self.vocab}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"data.held_out must be between 0 and 1: got {self.held_out}")
        if not self.tokenizer.strip() or "\0" in self.tokenizer:
            raise ValueError(f"data.tokenizer must be chars, bytes, bpe-SIZE, or a path: got {self.tokenizer!r}")


@dataclasses.dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Training images, and the folder that has them.

    Raises:
        ValueError: as `SourceConfig`; or `image_size`, `memory`, `threads` or `workers` is out of its range.
    """

    KNOWN: ClassVar[tuple[str, ...]] = IMAGES
    SUFFIXES: ClassVar[tuple[str, ...]] = (".npz",)

    name: str = option("digits", first=True)
    """digits, mnist, fashion_mnist, cifar10, eurosat64, captioned_digits, emoji64; or a path: a folder with one
    subfolder per class (./flowers) or with pictures alone, an .npz file with arrays images and labels, or a prepared
    set."""

    image_size: int | None = None
    """Side of the square images. Images of a folder are resized (shorter side, then centre crop); those of any other
    set must have it.
    """

    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    """Augmentation."""

    memory: float = 4.0
    """Memory for decoded training images, in GiB. A larger folder, .npz or prepared set is read ahead from its files.
    """

    threads: int = option(8, free=True)
    """Reading threads."""

    workers: int = option(0, free=True)
    """Reading processes, each with that many threads; useful where decoding is the bottleneck. 0: threads alone."""

    def __post_init__(self):
        super().__post_init__()
        for name, low in (("threads", 1), ("workers", 0)):
            if not low <= getattr(self, name) <= 256:
                raise ValueError(f"data.{name} must be between {low} and 256: got {getattr(self, name)}")
        if not 0 <= self.memory < float("inf"):
            raise ValueError(f"data.memory must be at least 0 and finite: got {self.memory}")
        if self.image_size is not None and not 1 <= self.image_size <= 8192:
            raise ValueError(f"data.image_size must be between 1 and 8192: got {self.image_size}")
        sides = () if self.is_path else KNOWN[self.name].shape[:2]
        if sides and self.image_size is not None and set(sides) != {self.image_size}:
            raise ValueError(
                f"data.image_size must be {sides[0]} with data.name={self.name}, as only folders are resized: got "
                f"{self.image_size}; leave it out"
            )

    @property
    def is_npz(self) -> bool:
        """True where `name` is the path of an .npz file."""
        return self.name.lower().endswith(".npz")


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/eqxgen/data`, or `~/.cache/eqxgen/data`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "eqxgen" / "data"
