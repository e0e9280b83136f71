"""Sizes of ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627, table 1)."""

import dataclasses

from eqxgen.configs._check import at_least_one, one_of, require
from eqxgen.configs.vit import REMATS


@dataclasses.dataclass(frozen=True)
class ViTVQGANConfig:
    """Sizes of `eqxgen.models.tokenizers.vit_vqgan.ViTVQGAN`; by default those of the base model."""

    patch: int = 8
    """Side of a patch in pixels."""
    dim: int = 768
    """Width of a token of the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder."""
    head_dim: int | None = None
    """Width of a head of both halves; by default dim / heads. The published code has 64 in every size."""
    hidden_dim: int | None = None
    """Inner width of the encoder's MLP; by default 4 dim."""
    decoder_dim: int | None = None
    """Width of a token of the decoder; by default the encoder's sizes are the decoder's."""
    decoder_depth: int | None = None
    """Blocks of the decoder."""
    decoder_heads: int | None = None
    """Attention heads of the decoder."""
    decoder_hidden_dim: int | None = None
    """Inner width of the decoder's MLP; by default 4 decoder_dim, and the encoder's where that is not given."""
    codes: int = 8192
    """Number of codes."""
    code_dim: int = 32
    """Size of a code."""
    unit: bool = False
    """The net's own images are in [0, 1], as in the published code; the model's stay in [-1, 1]."""
    remat: str = "none"
    """Rematerialisation of blocks in the backward pass: none, dots or full."""

    def __post_init__(self):
        sizes = ("dim", "depth", "heads", "hidden_dim")
        more = ("patch", "head_dim", "codes", "code_dim")
        at_least_one(self, *more, *sizes, *(f"decoder_{name}" for name in sizes))
        one_of(self, "remat", REMATS)
        for part, dim, heads in (("", self.dim, self.heads), ("decoder_", *self.decoder[::2][:2])):
            require(
                self.head_dim is not None or dim % heads == 0,
                f"model.{part}heads must divide model.{part}dim: got {part}dim={dim}, {part}heads={heads}",
            )
            require(dim % 4 == 0, f"model.{part}dim must be a multiple of 4, for its positions: got {dim}")

    @property
    def encoder(self) -> tuple[int, int, int, int]:
        """Width, depth, heads and inner width."""
        return self.dim, self.depth, self.heads, self.hidden_dim or 4 * self.dim

    @property
    def decoder(self) -> tuple[int, int, int, int]:
        """Width, depth, heads and inner width."""
        dim, depth, heads, hidden = self.encoder
        dim, hidden = self.decoder_dim or dim, 4 * self.decoder_dim if self.decoder_dim else hidden
        return dim, self.decoder_depth or depth, self.decoder_heads or heads, self.decoder_hidden_dim or hidden

    @classmethod
    def small(cls) -> "ViTVQGANConfig":
        """8 blocks of 512, in both halves."""
        return cls(dim=512, depth=8, heads=8)

    @classmethod
    def base(cls) -> "ViTVQGANConfig":
        """12 blocks of 768, in both halves."""
        return cls()

    @classmethod
    def large(cls) -> "ViTVQGANConfig":
        """A small encoder and a decoder of 32 blocks of 1,280, with 16 heads of 64 as in the published code."""
        return cls(dim=512, depth=8, heads=8, head_dim=64, decoder_dim=1280, decoder_depth=32, decoder_heads=16)
