"""Sizes of ResNet (He et al. 2016, arXiv:1512.03385)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, require


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Sizes of `eqxgen.models.resnet.ResNet`."""

    width: int = 16
    """Channels at the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, as multiples of width; the image is halved between levels."""
    blocks: int = 3
    """Residual blocks at each level, of two convolutions each."""
    dropout: float = 0.0
    """Rate before the last projection."""

    def __post_init__(self):
        at_least_one(self, "width", "blocks")
        require(
            len(self.multipliers) >= 1 and min(self.multipliers) >= 1,
            f"model.multipliers must be one or more integers of at least 1: got {self.multipliers}",
        )
        dropout(self)

    @classmethod
    def cifar(cls, depth: int = 20) -> "ResNetConfig":
        """The paper's net for 32 pixels: 20, 32, 44, 56 or 110 layers (section 4.2).

        Raises:
            ValueError: depth is not 6 n + 2.
        """
        require(depth >= 8 and depth % 6 == 2, f"depth must be 6 n + 2, such as 20: got {depth}")
        return cls(blocks=(depth - 2) // 6)
