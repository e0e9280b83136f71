"""Sizes of generators and discriminators: DCGAN, R3GAN, StyleGAN2."""

import dataclasses

from eqxgen.configs._check import at_least_one, not_negative, one_of, positive, require


@dataclasses.dataclass(frozen=True)
class DCGANConfig:
    """Sizes of `eqxgen.models.DCGANGenerator` and `DCGANDiscriminator` (Radford et al. 2016, arXiv:1511.06434)."""

    latent_dim: int = 100
    """Size of a latent."""
    width: int = 64
    """Channels of the largest feature map; doubled wherever the image is halved."""
    max_width: int = 512
    """Most channels."""
    base: int = 4
    """Largest side of the smallest feature map; an image is halved until its side is at most this, or odd."""
    label_dim: int = 32
    """Size of a class's embedding beside the latent."""

    def __post_init__(self):
        at_least_one(self, "latent_dim", "width", "max_width", "base", "label_dim")

    def sides(self, size: int) -> tuple[int, ...]:
        """Sides of the feature maps, from the smallest to that of the image.

        Raises:
            ValueError: the image cannot be halved once.
        """
        sides = [size]
        while sides[0] > self.base and sides[0] % 2 == 0:
            sides.insert(0, sides[0] // 2)
        require(len(sides) > 1, f"size of the image must be even and above dcgan.base={self.base}: got {size}")
        return tuple(sides)

    @classmethod
    def paper(cls) -> "DCGANConfig":
        """The paper's 64 pixels (figure 1): 4 x 4 x 1024 to 32 x 32 x 128."""
        return cls(width=128, max_width=1024)


@dataclasses.dataclass(frozen=True)
class R3GANConfig:
    """Sizes of `eqxgen.models.R3GANGenerator` and `R3GANDiscriminator` (Huang et al. 2024, arXiv:2501.05441)."""

    latent_dim: int = 64
    """Size of a latent."""
    widths: tuple[int, ...] = (768, 768, 768, 768)
    """Channels of each stage, from the smallest feature map; the image is doubled between stages."""
    groups: tuple[int, ...] = (96, 96, 96, 96)
    """Groups of the 3x3 convolutions of each stage."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage."""
    expansion: int = 2
    """Channels within a block, as a multiple of its width."""
    label_dim: int = 64
    """Size of a class's embedding beside the latent and in the discriminator's product."""
    taps: tuple[int, ...] = (1, 2, 1)
    """Filter of the resampling."""

    def __post_init__(self):
        at_least_one(self, "latent_dim", "expansion", "label_dim")
        for name in ("widths", "groups", "blocks"):
            values = getattr(self, name)
            require(
                len(values) == len(self.widths) >= 1 and min(values) >= 1,
                f"r3gan.{name} must have an integer of at least 1 for each of {len(self.widths)} stages: got {values}",
            )
        for width, groups in zip(self.widths, self.groups):
            require(
                width * self.expansion % groups == 0,
                f"r3gan.groups must divide the expanded width {width * self.expansion} of its stage: got {groups}",
            )

    def base(self, size: int) -> int:
        """Side of the smallest feature map of images of a size.

        Raises:
            ValueError: the stages do not halve the size evenly, down to 2 at least.
        """
        factor = 2 ** (len(self.widths) - 1)
        require(
            size % factor == 0 and size // factor >= 2,
            f"r3gan.widths: {len(self.widths)} stages must halve the image evenly to a side of 2 or more: got {size}",
        )
        return size // factor

    @classmethod
    def cifar(cls) -> "R3GANConfig":
        """CIFAR-10 of the paper (appendix): four stages of 768 channels, 16 channels a group."""
        return cls()

    @classmethod
    def ffhq256(cls) -> "R3GANConfig":
        """FFHQ at 256 pixels of the paper."""
        return cls(widths=(768, 768, 768, 768, 384, 192, 96), groups=(96, 96, 96, 96, 48, 24, 12), blocks=(2,) * 7)


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config:
    """Sizes of `eqxgen.models.StyleGAN2Generator` and `StyleGAN2Discriminator` (Karras et al. 2020, arXiv:1912.04958
    and arXiv:2006.06676, table 1 of the supplement).
    """

    latent_dim: int = 512
    """Size of a latent and of a style vector."""
    mapping: int = 8
    """Layers of the mapping network."""
    width: int = 32768
    """Channels of a feature map of side r are width / r, at most max_width."""
    max_width: int = 512
    """Most channels."""
    generator: str = "skip"
    """Form of the generator: skip sums the images of all resolutions, residual has shortcuts."""
    discriminator: str = "residual"
    """Form of the discriminator: residual, skip, or plain."""
    group: int = 4
    """Images of a group whose deviation the discriminator sees; 0: none."""
    deviations: int = 1
    """Maps of the deviation."""
    clamp: float = 256.0
    """Bound of the activations of the synthesis and of the discriminator; 0: none."""

    def __post_init__(self):
        at_least_one(self, "latent_dim", "mapping", "width", "max_width", "deviations", prefix="stylegan2.")
        one_of(self, "generator", ("skip", "residual"), "stylegan2.")
        one_of(self, "discriminator", ("residual", "skip", "plain"), "stylegan2.")
        not_negative(self, "group", "clamp", prefix="stylegan2.")
        positive(self, "width", prefix="stylegan2.")

    def channels(self, side: int) -> int:
        """Channels of a feature map."""
        return max(1, min(self.width // side, self.max_width))

    def sides(self, size: int) -> tuple[int, ...]:
        """Sides of the feature maps, from 4 to that of the image.

        Raises:
            ValueError: the size is no power of two of at least 4.
        """
        require(
            size >= 4 and size & (size - 1) == 0,
            f"size of the image must be a power of two of at least 4 for stylegan2: got {size}",
        )
        return tuple(2**level for level in range(2, size.bit_length()))

    @classmethod
    def cifar(cls) -> "StyleGAN2Config":
        """CIFAR-10 of StyleGAN2-ADA: 512 channels, a mapping of 2 layers, a plain discriminator, groups of 32."""
        return cls(mapping=2, discriminator="plain", group=32)

    @classmethod
    def paper256(cls) -> "StyleGAN2Config":
        """256 pixels of StyleGAN2-ADA: half the channels, groups of 8."""
        return cls(width=16384, group=8)

    @classmethod
    def paper512(cls) -> "StyleGAN2Config":
        """512 pixels of StyleGAN2-ADA: groups of 8."""
        return cls(group=8)

    @classmethod
    def stylegan2(cls) -> "StyleGAN2Config":
        """Configuration F of StyleGAN2 at 1024 pixels: groups of 4."""
        return cls()
