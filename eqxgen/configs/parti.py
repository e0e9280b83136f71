"""Sizes of autoregressive models of image tokens by text: Parti's (Yu et al. 2022, arXiv:2206.10789)."""

import dataclasses

from eqxgen.configs._check import require
from eqxgen.configs.t5 import T5Config

PARTI_SIZES = {
    "350m": (1024, 12, 12, 16, 4096),
    "750m": (1024, 12, 36, 16, 4096),
    "3b": (2048, 12, 36, 32, 8192),
    "20b": (4096, 16, 64, 64, 16384),
}
"""Width, blocks of the encoder and of the decoder, heads and the MLPs' width (table 1 of the paper)."""


@dataclasses.dataclass(frozen=True)
class PartiConfig(T5Config):
    """Sizes of `eqxgen.models.parti.Parti`, whose halves are T5's; those of 350 M parameters by default."""

    dim: int = 1024
    """Width of a token."""
    depth: int = 12
    """Blocks of the encoder of texts."""
    decoder_depth: int | None = None
    """Blocks of the decoder of image tokens; by default depth."""
    heads: int = 16
    """Attention heads."""
    hidden_dim: int = 4096
    """Inner width of each MLP."""
    context: int = 128
    """Tokens of a text, the end included."""
    tied: bool = False
    """The table of the codes as the head."""
    positions: bool = True
    """A learned position of each image token, beside the bias by distance."""

    def __post_init__(self):
        super().__post_init__()
        require(self.context >= 2, f"model.context must be at least 2, for a token and the end: got {self.context}")

    @classmethod
    def parti(cls, name: str = "350m") -> "PartiConfig":
        """A published size, one of `PARTI_SIZES`."""
        require(name in PARTI_SIZES, f"name must be one of {', '.join(PARTI_SIZES)}: got {name!r}")
        dim, depth, decoder_depth, heads, hidden_dim = PARTI_SIZES[name]
        return cls(dim=dim, depth=depth, decoder_depth=decoder_depth, heads=heads, hidden_dim=hidden_dim)
