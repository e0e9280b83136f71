"""Sizes of EDM2's U-Net (Karras et al. 2024, arXiv:2312.02696)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, require


@dataclasses.dataclass(frozen=True)
class EDM2Config:
    """Sizes and balances of `eqxgen.models.denoisers.edm2.EDM2UNet`."""

    width: int = 192
    """Channels that the multipliers are of; features of the noise level."""
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """Channels of each level over the width; the image is halved between levels."""
    blocks: int = 3
    """Blocks at each level on the way down; there is one more on the way up."""
    attention: tuple[int, ...] = (2, 3)
    """Levels, from 0, with attention in each of their blocks."""
    head_dim: int = 64
    """Channels of a head of attention; it divides those of the levels with attention."""
    dropout: float = 0.0
    """Rate within each block."""
    label_balance: float = 0.5
    """Share of the class in its sum with the noise level."""
    concat_balance: float = 0.5
    """Share of the way down in its concatenation with the way up."""
    block_balance: float = 0.3
    """Share of the convolutions in their sum with a block's input."""
    attention_balance: float = 0.3
    """Share of attention in its sum with its input."""
    clip: float = 256.0
    """Bound of the entries of a block's result."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "width", "blocks", "head_dim", "clip")
        dropout(self)
        levels = range(len(self.multipliers))
        require(
            len(self.multipliers) >= 1 and all(multiplier >= 1 for multiplier in self.multipliers),
            f"model.multipliers must be one or more integers of at least 1: got {self.multipliers}",
        )
        require(
            all(level in levels for level in self.attention),
            f"model.attention must name levels in [0, {len(levels)}): got {self.attention}",
        )
        for level in (*self.attention, len(levels) - 1):
            require(
                self.widths[level] % self.head_dim == 0,
                f"model.head_dim must divide the {self.widths[level]} channels of level {level}: got {self.head_dim}",
            )
        for name in ("label_balance", "concat_balance", "block_balance", "attention_balance"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"model.{name} must be in [0, 1]: got {value}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def factor(self) -> int:
        """Number that must divide the sides of an image."""
        return 2 ** (len(self.multipliers) - 1)

    @classmethod
    def of(cls, size: str) -> "EDM2Config":
        """EDM2 of ImageNet at 512 pixels, latents of 64 (table 6): sizes xs, s, m, l, xl and xxl.

        Raises:
            ValueError: another size.
        """
        require(size in SIZES, f"size must be one of {', '.join(SIZES)}: got {size!r}")
        return cls(width=SIZES[size], dropout=0.0 if size in ("xs", "s") else 0.10)

    @classmethod
    def small_images(cls) -> "EDM2Config":
        """Small, for images of 28 or 32 pixels; the sizes are ours."""
        return cls(width=32, multipliers=(1, 2, 2), blocks=1, attention=(2,), head_dim=32)


SIZES = {"xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}
"""Width by size."""
