"""Sizes of the U-Net that gives each pixel a class (Ronneberger et al. 2015, arXiv:1505.04597)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, one_of, require

NORMS = ("batch", "group")


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
    """Sizes of `eqxgen.models.segmentation.SegmentationUNet`."""

    width: int = 16
    """Channels at the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of each level, as multiples of width; the image is halved between levels."""
    norm: str = "batch"
    """batch: statistics of the whole batch; group: of each image, for small batches."""
    groups: int = 8
    """Groups of channels of a group norm."""
    dropout: float = 0.0
    """Rate after the last level of the contracting path."""

    def __post_init__(self):
        at_least_one(self, "width", "groups")
        require(
            len(self.multipliers) >= 1 and min(self.multipliers) >= 1,
            f"model.multipliers must be one or more integers of at least 1: got {self.multipliers}",
        )
        one_of(self, "norm", NORMS)
        dropout(self)
        uneven = [width for width in self.widths if width % self.groups]
        require(
            self.norm == "batch" or not uneven,
            f"model.groups must divide the channels of every level: got model.groups={self.groups}, "
            f"{', '.join(map(str, self.widths))} channels",
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def factor(self) -> int:
        """Divisor of the sides of an image."""
        return 2 ** (len(self.multipliers) - 1)

    @classmethod
    def paper(cls) -> "SegmentationConfig":
        """The paper's sizes (figure 1): five levels from 64 to 1,024 channels."""
        return cls(64, (1, 2, 4, 8, 16))
