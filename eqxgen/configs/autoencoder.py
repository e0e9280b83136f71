"""Sizes of the convolutional autoencoders of taming transformers (Esser et al. 2021, arXiv:2012.09841) and latent
diffusion (Rombach et al. 2022, arXiv:2112.10752).
"""

import dataclasses

from eqxgen.configs._check import at_least_one, require


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of `eqxgen.models.autoencoder`'s encoder and decoder."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks at each level of the encoder; the decoder has one more."""
    latent_dim: int = 4
    """Channels of a latent."""
    attention: tuple[int, ...] = ()
    """Levels, from 0, with attention after each of their blocks."""
    middle_attention: bool = True
    """Attention between the two blocks at the smallest size."""
    groups: int = 32
    """Groups of every group norm; they divide the channels of every level."""
    projected: bool = True
    """1x1 convolutions after the encoder and before the decoder."""
    remat: bool = dataclasses.field(default=False, metadata={"free": True})
    """Rematerialises each block in the backward pass, for large images."""

    def __post_init__(self):
        at_least_one(self, "blocks", "latent_dim", "groups")
        require(
            len(self.widths) >= 1 and all(width >= 1 and width % self.groups == 0 for width in self.widths),
            f"model.widths must be one or more multiples of groups={self.groups}: got {self.widths}",
        )
        levels = range(len(self.widths))
        require(
            all(level in levels for level in self.attention),
            f"model.attention must name levels in [0, {len(levels)}): got {self.attention}",
        )

    @property
    def factor(self) -> int:
        """Pixels along each side of a latent."""
        return 2 ** (len(self.widths) - 1)

    @classmethod
    def stable_diffusion(cls) -> "AutoencoderConfig":
        """The KL autoencoder of Stable Diffusion 1 and 2: 8 pixels along each side of a latent of 4 channels."""
        return cls()

    @classmethod
    def latent_diffusion(cls, factor: int) -> "AutoencoderConfig":
        """The KL autoencoders of the latent-diffusion paper with factor 4, 8 or 16.

        Raises:
            ValueError: another factor.
        """
        sizes = {
            4: ((128, 256, 512), 3, ()),
            8: ((128, 256, 512, 512), 4, ()),
            16: ((128, 128, 256, 256, 512), 16, (4,)),
        }
        require(factor in sizes, f"factor must be one of {', '.join(map(str, sizes))}: got {factor}")
        widths, latent_dim, attention = sizes[factor]
        return cls(widths=widths, latent_dim=latent_dim, attention=attention)

    @classmethod
    def taming(cls) -> "AutoencoderConfig":
        """The VQGAN of taming transformers for 256 pixels: 16 x 16 codes of 256 channels, attention at 16."""
        return cls(widths=(128, 128, 256, 256, 512), latent_dim=256, attention=(4,))


@dataclasses.dataclass(frozen=True)
class TamingConfig(AutoencoderConfig):
    """Sizes of `eqxgen.models.tokenizers.taming.Taming`; by default of 256 pixels: 16 x 16 codes, attention there."""

    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    """Channels of each level; the image is halved between levels."""
    latent_dim: int = 256
    """Channels of the encoder's result."""
    attention: tuple[int, ...] = (4,)
    """Levels, from 0, with attention after each of their blocks."""
    codes: int = 1024
    """Number of codes."""
    code_dim: int = 256
    """Size of a code."""

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "codes", "code_dim", prefix="taming.")
        require(self.projected, "taming.projected must be true: a codebook is between two 1x1 convolutions")
