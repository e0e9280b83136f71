"""Sizes of VQGAN (Esser et al. 2021, arXiv:2012.09841)."""

import dataclasses

from eqxgen.configs._check import at_least_one, one_of, positive, require
from eqxgen.configs.quantizer import QuantizerConfig

GROUPS = 32
"""Of the norms, at most."""


@dataclasses.dataclass(frozen=True)
class VQGANConfig:
    """Sizes of `eqxgen.models.vqgan.VQGAN`."""

    width: int = 128
    """Channels at the first level."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels of each level, as multiples of width; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks at each level, and in the middle."""
    latent_dim: int = 256
    """Size of a code."""
    codes: int = 1024
    """Number of codes."""
    commitment: float = 0.25
    """Weight of the encoder's part of the quantisation loss."""
    temperature: float = 0.01
    """Temperature of the soft assignments in the entropy loss."""
    codebook: str = "learned"
    """learned: codes are parameters; ema: codes are moving averages of the latents that choose them."""
    codebook_decay: float = 0.99
    """Decay per step of the averages of codebook=ema."""
    group_width: int = 1
    """Channels of a group of each norm, at least. With 1, norms of 32 channels or fewer are of each channel alone, and
    drop the mean colour and the contrast of an image; small nets of photographs keep them with 4."""
    remat: bool = dataclasses.field(default=False, metadata={"free": True})
    """Rematerialises each block in the backward pass, for large images."""
    form: str = "plain"
    """plain, or published: with the biases, shortcuts and range of pixels of MaskGIT's published weights."""

    def __post_init__(self):
        at_least_one(self, "width", "blocks", "latent_dim", "codes", "group_width")
        require(
            len(self.multipliers) >= 1 and min(self.multipliers) >= 1,
            f"model.multipliers must be one or more integers of at least 1: got {self.multipliers}",
        )
        for channels in (self.width * multiplier for multiplier in (1, *self.multipliers)):
            require(
                channels % self.groups_of(channels) == 0,
                f"model.width times each of model.multipliers must be a multiple of the norms' groups: got {channels} "
                f"channels of {self.width} and {self.multipliers} in {self.groups_of(channels)} groups",
            )
        positive(self, "commitment", "temperature")
        one_of(self, "codebook", ("learned", "ema"))
        one_of(self, "form", ("plain", "published"))
        require(0 < self.codebook_decay < 1, f"model.codebook_decay must be in (0, 1): got {self.codebook_decay}")

    def groups_of(self, channels: int) -> int:
        """Groups of a norm over some channels."""
        return max(1, min(GROUPS, channels // self.group_width))

    @property
    def factor(self) -> int:
        """Pixels along each side of a token."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def quantizer(self) -> QuantizerConfig:
        """The codebook of these sizes."""
        kind = "ema" if self.codebook == "ema" else "vq"
        return QuantizerConfig(
            kind=kind,
            codes=self.codes,
            dim=self.latent_dim,
            commitment=self.commitment,
            temperature=self.temperature,
            decay=self.codebook_decay,
        )

    @classmethod
    def maskgit(cls) -> "VQGANConfig":
        """The tokenizer of the MaskGIT paper (arXiv:2202.04200): 256 pixels to 16 x 16 tokens of 1,024 codes."""
        return cls()

    @classmethod
    def published(cls) -> "VQGANConfig":
        """The published weights of that tokenizer; see `eqxgen.pretrained.vqgan`."""
        return cls(form="published")
