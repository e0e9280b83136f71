"""Sizes of the convolutional classifiers: ResNet (He et al. 2016, arXiv:1512.03385), and a small net."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, one_of, require

BLOCKS = ("basic", "bottleneck")


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
    depths: tuple[int, ...] = ()
    """Residual blocks of each level, where they differ."""
    block: str = "basic"
    """basic: two 3x3 convolutions; bottleneck: 1x1, 3x3 and 1x1, with a fourth of the channels within."""
    stem: int = 0
    """Channels of a 7x7 convolution with stride 2 and a max pool before the levels; 0 is a 3x3 convolution with
    those of the first level."""
    halve_first: bool = False
    """Halves the image at the first level too."""
    stride_first: bool = False
    """Stride in the 1x1 of a bottleneck, as in the paper, instead of the 3x3, as in most published weights."""

    def __post_init__(self):
        at_least_one(self, "width", "blocks")
        require(
            len(self.multipliers) >= 1 and min(self.multipliers) >= 1,
            f"model.multipliers must be one or more integers of at least 1: got {self.multipliers}",
        )
        dropout(self)
        one_of(self, "block", BLOCKS)
        require(self.stem >= 0, f"model.stem must be at least 0: got {self.stem}")
        same = not self.depths or (len(self.depths) == len(self.multipliers) and min(self.depths) >= 1)
        require(
            same, f"model.depths must be {len(self.multipliers)} integers of at least 1, or none: got {self.depths}"
        )
        least = self.width * min(self.multipliers)
        thin = self.block == "bottleneck" and least < 4
        require(not thin, f"model.width must give 4 channels at least with block='bottleneck': got {least}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks of each level."""
        return self.depths or (self.blocks,) * len(self.multipliers)

    @classmethod
    def imagenet(cls, depth: int = 50) -> "ResNetConfig":
        """The paper's net for 224 pixels: 18, 34, 50, 101 or 152 layers (table 1), with the stride in the 3x3.

        Raises:
            ValueError: there is no such depth.
        """
        require(depth in _IMAGENET, f"depth must be one of {', '.join(map(str, _IMAGENET))}: got {depth}")
        block, wide = ("basic", 64) if depth < 50 else ("bottleneck", 256)
        return cls(wide, (1, 2, 4, 8), block=block, depths=_IMAGENET[depth], stem=64)

    @classmethod
    def cifar(cls, depth: int = 20) -> "ResNetConfig":
        """The paper's net for 32 pixels: 20, 32, 44, 56 or 110 layers (section 4.2).

        Raises:
            ValueError: depth is not 6 n + 2.
        """
        require(depth >= 8 and depth % 6 == 2, f"depth must be 6 n + 2, such as 20: got {depth}")
        return cls(blocks=(depth - 2) // 6)


_IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclasses.dataclass(frozen=True)
class ConvNetConfig:
    """Sizes of `eqxgen.models.convnet.ConvNet`, whose constructor takes them."""

    width: int = 32
    """Channels of the first level, doubled at each; a multiple of 8."""
    levels: int = 2
    """Number of times that the image is halved."""
    features: int = 64
    """Size of the hidden layer."""
    dropout: float = 0.2
    """Rate before the last projection."""

    def __post_init__(self):
        at_least_one(self, "width", "levels", "features")
        require(self.width % 8 == 0, f"model.width must be a multiple of 8: got {self.width}")
        dropout(self)
