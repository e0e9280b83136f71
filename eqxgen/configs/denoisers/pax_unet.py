"""Sizes of the U-Net of Pax's example of denoising diffusion."""

import dataclasses

from eqxgen.configs._check import at_least_one, require


@dataclasses.dataclass(frozen=True)
class PaxUNetConfig:
    """Sizes of `eqxgen.models.denoisers.pax_unet.PaxUNet`; the defaults are the example's, for CelebA at 64 pixels."""

    width: int = 64
    """Channels that the multipliers are of; features of the time; even."""
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of each level over the width; the image is halved between levels."""
    heads: int = 4
    """Heads of attention."""
    head_dim: int = 32
    """Channels of a head."""
    groups: int = 8
    """Groups of each norm; must divide the channels of every level."""

    def __post_init__(self):
        at_least_one(self, "width", "heads", "head_dim", "groups")
        require(self.width % 2 == 0 and self.width > 2, f"model.width must be even and at least 4: got {self.width}")
        require(
            len(self.multipliers) >= 1 and min(self.multipliers) >= 1,
            f"model.multipliers must be at least one, each at least 1: got {self.multipliers}",
        )
        for width in self.widths:
            require(width % self.groups == 0, f"model.groups must divide {width} channels: got {self.groups}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def factor(self) -> int:
        """Number that must divide the sides of an image."""
        return 2 ** (len(self.multipliers) - 1)
