"""Sizes of models of masked image tokens by text: MUSE's (Chang et al. 2023, arXiv:2301.00704)."""

import dataclasses

from eqxgen.configs._check import require
from eqxgen.configs.t5 import T5Config

MUSE_SIZES = {
    "632m": (1024, 36, 16, 4096, 0),
    "3b": (2048, 48, 32, 8192, 0),
    "super": (1024, 32, 16, 4096, 16),
}
"""Width, blocks of the decoder, heads, the MLPs' width, and blocks of the encoder of low-resolution tokens: of the
paper's two first stages and its second. The depth of the first is chosen to reach the paper's number of parameters."""


@dataclasses.dataclass(frozen=True)
class MuseConfig(T5Config):
    """Sizes of `eqxgen.models.muse.Muse`, whose blocks are T5's."""

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
    low_depth: int = 2
    """Blocks of the encoder of low-resolution tokens, of a second stage."""

    def __post_init__(self):
        super().__post_init__()
        require(self.context >= 2, f"model.context must be at least 2, for a token and the end: got {self.context}")
        require(self.low_depth >= 0, f"model.low_depth must be at least 0: got {self.low_depth}")

    @classmethod
    def muse(cls, name: str = "632m") -> "MuseConfig":
        """A size of the paper, one of `MUSE_SIZES`."""
        require(name in MUSE_SIZES, f"name must be one of {', '.join(MUSE_SIZES)}: got {name!r}")
        dim, depth, heads, hidden_dim, low_depth = MUSE_SIZES[name]
        return cls(dim=dim, decoder_depth=depth, heads=heads, hidden_dim=hidden_dim, low_depth=low_depth)
