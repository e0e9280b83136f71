"""Sizes of a tokenizer of images as a short row of tokens (Yu et al. 2024, TiTok, arXiv:2406.07550, table 1)."""

import dataclasses

from eqxgen.configs._check import at_least_one, heads_divide_dim, one_of
from eqxgen.configs.vit import REMATS


@dataclasses.dataclass(frozen=True)
class TiTokConfig:
    """Sizes of `eqxgen.models.tokenizers.titok.TiTok`; by default those of the small model of 128 tokens."""

    patch: int = 16
    """Side of a patch in pixels."""
    latents: int = 128
    """Tokens of an image."""
    dim: int = 512
    """Width of a token inside."""
    depth: int = 8
    """Blocks of each half."""
    heads: int = 8
    """Attention heads of a block."""
    hidden_dim: int | None = None
    """Inner width of the MLP; 4 dim by default."""
    codes: int = 4096
    """Number of codes."""
    code_dim: int = 12
    """Size of a code."""
    remat: str = "none"
    """Rematerialisation of blocks in the backward pass: none, dots or full."""

    def __post_init__(self):
        at_least_one(self, "patch", "latents", "dim", "depth", "heads", "hidden_dim", "codes", "code_dim")
        heads_divide_dim(self)
        one_of(self, "remat", REMATS)

    @classmethod
    def small(cls) -> "TiTokConfig":
        """8 blocks of 512, 128 tokens."""
        return cls()

    @classmethod
    def base(cls) -> "TiTokConfig":
        """12 blocks of 768, 64 tokens."""
        return cls(latents=64, dim=768, depth=12, heads=12)

    @classmethod
    def large(cls) -> "TiTokConfig":
        """24 blocks of 1,024, 32 tokens."""
        return cls(latents=32, dim=1024, depth=24, heads=16)
