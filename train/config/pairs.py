"""Options of images with masks, and of the transform that both go through. Imports nothing heavy."""

import dataclasses
from typing import ClassVar, NamedTuple

from .._errors import require
from .data import SourceConfig
from .known import PAIRS
from .options import option

MOST = 255
"""Classes of a pixel at most."""


class MaskClass(NamedTuple):
    """A class of a pixel.

    Attributes:
        value: of its pixels in a mask: a grey level, or three levels of a colour.
        name: of the class.
    """

    value: tuple[int, ...]
    name: str

    @classmethod
    def parse(cls, text: str) -> "MaskClass":
        """The class of `VALUE` or `VALUE=NAME`, such as `0`, `255=cell` or `255,0,0=road`.

        Raises:
            ValueError: the value is neither one level nor three, from 0 to 255.
        """
        levels, equals, name = text.partition("=")
        parts = [part.strip() for part in levels.split(",")]
        whole = all(part.isascii() and part.isdigit() and int(part) <= 255 for part in parts)
        named = bool(name.strip()) or not equals
        require(
            whole and named and len(parts) in (1, 3),
            "data.classes must be grey levels or colours of masks, each from 0 to 255 and with a name where wanted, "
            f"such as 0 255=cell or 255,0,0=road: got {text!r}",
        )
        return cls(tuple(map(int, parts)), name.strip() or levels)


@dataclasses.dataclass(frozen=True)
class WarpConfig:
    """Random transform of an image and its mask.

    Raises:
        ValueError: a value is out of its range.
    """

    flip: bool = True
    """Mirror half of the images, along each axis on its own."""

    rotate: float = 180.0
    """Largest rotation, in degrees, to either side."""

    elastic: float = 10.0
    """Deviation of the elastic displacements at their control points, in pixels; 0: none."""

    def __post_init__(self):
        require(0 <= self.rotate <= 180, f"data.augment.rotate must be between 0 and 180: got {self.rotate}")
        require(0 <= self.elastic <= 1000, f"data.augment.elastic must be between 0 and 1000: got {self.elastic}")


@dataclasses.dataclass(frozen=True)
class PairConfig(SourceConfig):
    """Training images with a mask each, and the folder that has them.

    Raises:
        ValueError: as `SourceConfig`; a class is given twice, or `crop`, `held_out` or `threads` is out of its range.
    """

    KNOWN: ClassVar[tuple[str, ...]] = PAIRS

    name: str = option("isbi_membrane", first=True)
    """isbi_membrane; or a path: a folder with images/ and masks/, whose files have the same names but for the ending,
    or with train/ and test/, or val/, of such folders."""

    classes: tuple[str, ...] = option((), first=True)
    """Values of the masks' pixels, a class each, with their names: 0=ground 255=cell, or colours: 255,0,0=road. By
    default the values found, in order."""

    crop: int = option(128, first=True)
    """Side of the crops that are trained on, in pixels."""

    augment: WarpConfig = dataclasses.field(default_factory=WarpConfig)
    """The random transform."""

    held_out: float = 0.2
    """Fraction of the images of a folder without parts that is held out, always the same ones."""

    threads: int = option(8, free=True)
    """Reading threads."""

    def __post_init__(self):
        super().__post_init__()
        require(1 <= self.crop <= 8192, f"data.crop must be between 1 and 8192: got {self.crop}")
        require(0 < self.held_out < 1, f"data.held_out must be between 0 and 1: got {self.held_out}")
        require(1 <= self.threads <= 256, f"data.threads must be between 1 and 256: got {self.threads}")
        values, names = [kind.value for kind in self.listed], [kind.name for kind in self.listed]
        require(
            not values or 2 <= len(values) <= MOST,
            f"data.classes must be 2 to {MOST} classes: got {len(values)}; leave it out for the values that are found",
        )
        twice = len(set(values)) < len(values) or len(set(names)) < len(names)
        require(not twice, f"data.classes must have each value and name once: got {' '.join(self.classes)}")
        require(len({*map(len, values)}) <= 1, f"data.classes must be all grey or all colours: got {self.classes}")

    @property
    def listed(self) -> tuple[MaskClass, ...]:
        """The classes that are given."""
        return tuple(map(MaskClass.parse, self.classes))
