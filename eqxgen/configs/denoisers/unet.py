"""Sizes of the U-Nets of diffusion models: DDPM (Ho et al. 2020, arXiv:2006.11239), DDPM++ and NCSN++ (Song et al.
2021, arXiv:2011.13456) as trained by EDM (Karras et al. 2022, arXiv:2206.00364), and ADM (Dhariwal and Nichol 2021,
arXiv:2105.05233).
"""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, one_of, positive, require

INITS = ("glorot", "torch")
RESAMPLES = ("conv", "block")


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Sizes and switches of `eqxgen.models.denoisers.unet.UNet`."""

    width: int = 128
    """Channels that the multipliers are of; features of the noise level."""
    multipliers: tuple[int | float, ...] = (1, 2, 2, 2)
    """Channels of each level over the width; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks at each level on the way down; there is one more on the way up."""
    attention: tuple[int, ...] = (1,)
    """Levels, from 0, with attention after each of their blocks."""
    middle_attention: bool = True
    """Attention between the two blocks at the smallest size."""
    last_attention: bool = False
    """On the way up, attention after the last block of a level alone."""
    linear_attention: bool = False
    """Attention of a cost linear in the pixels."""
    heads: int | None = 1
    """Heads of attention, or None for heads of head_dim."""
    head_dim: int | None = None
    """Channels of a head, where heads is None."""
    dropout: float = 0.1
    """Rate within each residual block."""
    groups: int = 32
    """Groups of each norm, at most."""
    group_width: int = 1
    """Channels of a group, at least: a norm of c channels has min(groups, c / group_width) groups."""
    epsilon: float = 1e-6
    """Of the norms."""
    activation: str = "swish"
    """Name of the activation."""
    scaled: bool = False
    """A scale beside the shift of each block's second norm."""
    skip_scale: float = 1.0
    """Factor of the sum of a branch and its input."""
    resample: str = "conv"
    """Between levels a convolution, `conv`, or a residual block, `block`."""
    far_padding: bool = True
    """The convolutions that halve an image pad its far border alone, rather than both."""
    taps: tuple[int | float, ...] = (1, 1)
    """Of the filter with which residual blocks resample; (1, 1) is repetition and mean."""
    project: bool = False
    """A 1x1 convolution of the input of every residual block that resamples."""
    residual_input: bool = False
    """The image, convolved and halved level by level, added on the way down."""
    embedding: int = 4
    """Size of the condition over the width."""
    fourier: bool = False
    """Random frequencies for the noise level."""
    noise_width: int = 1
    """Features of the noise level over the width."""
    flip: bool = False
    """Cosines before sines of the noise level."""
    shift: int = 1
    """Subtracted from the number of the noise level's frequencies."""
    late_label: bool = True
    """The class is added to the condition after its projections, rather than before them."""
    scaled_label: bool = False
    """Rows of classes times sqrt(classes)."""
    label_bias: bool = False
    """A bias beside the rows of classes."""
    augment: int = 0
    """Number of augmentation labels."""
    times: int = 1
    """Times that the net is given: 1; or 2, with the interval down to a second time, of an average velocity."""
    learn_variance: bool = False
    """Twice the channels in the result, the second half for the noise's variance."""
    init: str = "glorot"
    """Weights at initialisation: `glorot` or `torch` uniform."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "width", "blocks", "heads", "head_dim", "groups", "group_width", "embedding", "noise_width")
        dropout(self)
        positive(self, "epsilon", "skip_scale")
        one_of(self, "resample", RESAMPLES)
        one_of(self, "init", INITS)
        require(self.augment >= 0, f"model.augment must be at least 0: got {self.augment}")
        require(self.times in (1, 2), f"model.times must be 1 or 2: got {self.times}")
        require(self.shift in (0, 1), f"model.shift must be 0 or 1: got {self.shift}")
        require(
            self.width * self.noise_width % 2 == 0 and self.width * self.noise_width > 2 * self.shift,
            f"model.width * noise_width must be even and more than {2 * self.shift}: got {self.width}",
        )
        require((self.heads is None) != (self.head_dim is None), "model.heads or model.head_dim must be None, not both")
        require(
            len(self.multipliers) >= 1 and all(m > 0 and (self.width * m) % 1 == 0 for m in self.multipliers),
            f"model.multipliers must give whole channels of width={self.width}: got {self.multipliers}",
        )
        levels = range(len(self.multipliers))
        require(
            all(level in levels for level in self.attention),
            f"model.attention must name levels in [0, {len(levels)}): got {self.attention}",
        )
        require(
            len(self.taps) % 2 == 0 and sum(self.taps) != 0,
            f"model.taps must be even in number with a sum other than 0: got {self.taps}",
        )
        for width, below in zip(self.widths, self.widths[1:] + self.widths[-1:]):
            for channels in (width, width + width, width + below):  # of norms on the way down, and up
                self.groups_of(channels)
        for level in self.attention:
            self.heads_of(self.widths[level])

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(int(self.width * multiplier) for multiplier in self.multipliers)

    @property
    def factor(self) -> int:
        """Number that must divide the sides of an image."""
        return 2 ** (len(self.multipliers) - 1)

    def heads_of(self, channels: int) -> int:
        """Heads of attention over some channels.

        Raises:
            ValueError: a head has more channels than there are, or they are not shared evenly.
        """
        heads = self.heads if self.head_dim is None else max(1, channels // self.head_dim)
        require(
            heads is not None and channels % heads == 0 and self.head_dim in (None, channels // heads),
            f"model.{'heads' if self.heads else 'head_dim'} must divide {channels} channels: got "
            f"{self.heads or self.head_dim}",
        )
        return heads or 1

    def groups_of(self, channels: int) -> int:
        """Groups of a norm over some channels.

        Raises:
            ValueError: they do not divide the channels.
        """
        groups = max(1, min(self.groups, channels // self.group_width))
        require(
            channels % groups == 0,
            f"model.groups must divide {channels} channels: got {groups} with groups={self.groups}, "
            f"group_width={self.group_width}",
        )
        return groups

    @classmethod
    def ddpm(cls, side: int = 32) -> "UNetConfig":
        """DDPM of CIFAR-10 at 32 pixels, 36 M parameters, and of LSUN and CelebA-HQ at 256, 114 M (appendix B).

        Raises:
            ValueError: another side.
        """
        require(side in (32, 256), f"side must be 32 or 256: got {side}")
        if side == 32:
            return cls()
        return cls(multipliers=(1, 1, 2, 2, 4, 4), attention=(4,), dropout=0.0)

    @classmethod
    def ddpmpp(cls) -> "UNetConfig":
        """DDPM++ of CIFAR-10 at 32 pixels as EDM trains it (Karras et al. 2022, table 7): 56 M parameters."""
        return cls(
            multipliers=(2, 2, 2),
            blocks=4,
            last_attention=True,
            dropout=0.13,
            group_width=4,
            skip_scale=0.5**0.5,
            resample="block",
            project=True,
            late_label=False,
            scaled_label=True,
            label_bias=True,
            augment=9,
        )

    @classmethod
    def ncsnpp(cls) -> "UNetConfig":
        """NCSN++ of CIFAR-10 at 32 pixels as EDM trains it (Karras et al. 2022, table 7)."""
        return dataclasses.replace(
            cls.ddpmpp(), taps=(1, 3, 3, 1), residual_input=True, fourier=True, noise_width=2, shift=0
        )

    @classmethod
    def adm(cls, side: int = 64) -> "UNetConfig":
        """ADM of ImageNet at 64, 128, 256 or 512 pixels (Dhariwal and Nichol 2021, table 11), with learned variance.

        Raises:
            ValueError: another side.
        """
        sizes = {
            64: (192, (1, 2, 3, 4), 3, (1, 2, 3)),
            128: (256, (1, 1, 2, 3, 4), 2, (2, 3, 4)),
            256: (256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)),
            512: (256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6)),
        }
        require(side in sizes, f"side must be one of {', '.join(map(str, sizes))}: got {side}")
        width, multipliers, blocks, attention = sizes[side]
        return cls(
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            heads=None,
            head_dim=64,
            dropout=0.1 if side == 64 else 0.0,
            epsilon=1e-5,
            scaled=True,
            resample="block",
            flip=True,
            shift=0,
            learn_variance=True,
            init="torch",
        )

    @classmethod
    def adm_upsampler(cls, side: int = 256) -> "UNetConfig":
        """ADM's upsampler to 256 pixels from 64, or to 512 from 128 (Dhariwal and Nichol 2021, table 11).

        Raises:
            ValueError: another side.
        """
        require(side in (256, 512), f"side must be 256 or 512: got {side}")
        if side == 256:
            return dataclasses.replace(cls.adm(256), width=192, heads=4, head_dim=None)
        return dataclasses.replace(
            cls.adm(512), width=192, multipliers=(1, 1, 2, 2, 4, 4), attention=(4, 5), heads=None, head_dim=64
        )

    @classmethod
    def edm_adm(cls) -> "UNetConfig":
        """ADM of ImageNet at 64 pixels as EDM trains it (Karras et al. 2022, table 7): 296 M parameters."""
        return dataclasses.replace(cls.adm(64), group_width=4, learn_variance=False)

    @classmethod
    def digits(cls) -> "UNetConfig":
        """Small, for images of 8 pixels: 0.4 M parameters."""
        return cls(width=32, multipliers=(1, 2), blocks=1, dropout=0.0, groups=8, scaled=True, resample="block")

    @classmethod
    def mnist(cls) -> "UNetConfig":
        """Small, for images of 28 or 32 pixels: 1 M parameters."""
        return cls(
            width=32,
            multipliers=(1, 2, 2),
            blocks=1,
            attention=(2,),
            dropout=0.0,
            groups=8,
            scaled=True,
            resample="block",
        )
