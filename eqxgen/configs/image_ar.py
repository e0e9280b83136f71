"""Sizes of class-conditional autoregressive models of image tokens: LlamaGen's, one by one (Sun et al. 2024,
arXiv:2406.06525), and VAR's, scale by scale (Tian et al. 2024, arXiv:2404.02905).
"""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, positive, require

LLAMAGEN_SIZES = {
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "xl": (1280, 36, 20),
    "xxl": (1536, 48, 24),
    "3b": (3200, 24, 32),
}
"""Width, depth and heads of the published models (table 1 of the paper): 111 M to 3.1 B parameters, of which 16,384
codes and 1,000 classes are a part.
"""

VAR_SIZES = {"d16": 16, "d20": 20, "d24": 24, "d30": 30}
"""Depth of the published models (table 1 and section 4 of the paper): 310 M, 600 M, 1.0 B and 2.0 B parameters. A block
has as many heads of 64 as there are blocks.
"""


@dataclasses.dataclass(frozen=True)
class ImageARConfig:
    """Sizes of `eqxgen.models.image_ar.ImageAR`."""

    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Number of transformer blocks."""
    heads: int = 12
    """Attention heads; must divide dim by a multiple of 4, for positions on a grid."""
    hidden_dim: int | None = None
    """Inner width of each SwiGLU; by default 8/3 dim rounded up to a multiple of 256."""
    dropout: float = 0.1
    """Dropout rate of the embedding and of every residual branch."""
    rope_base: float = 10_000.0
    """Base of the wavelengths of rotary positions."""
    epsilon: float = 1e-5
    """Of the norms."""
    blank_prefix: bool = False
    """Query and key of the class are zero, as in LlamaGen's published code, rather than at the grid's origin."""
    null: bool = True
    """A null label, for classifier-free guidance."""
    targets: bool = False
    """A learned position of the token that comes next is added to each: needed for random orders (RAR)."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim")
        heads_divide_dim(self)
        require(
            self.dim // self.heads % 4 == 0,
            f"model.dim / model.heads must be a multiple of 4 for positions on a grid: got {self.dim} / {self.heads}",
        )
        dropout(self)
        positive(self, "epsilon")
        require(self.rope_base > 1, f"model.rope_base must be greater than 1: got {self.rope_base}")

    @classmethod
    def llamagen(cls, name: str = "b") -> "ImageARConfig":
        """A published size, one of `LLAMAGEN_SIZES`."""
        require(name in LLAMAGEN_SIZES, f"name must be one of {', '.join(LLAMAGEN_SIZES)}: got {name!r}")
        dim, depth, heads = LLAMAGEN_SIZES[name]
        return cls(dim=dim, depth=depth, heads=heads, blank_prefix=True)


@dataclasses.dataclass(frozen=True)
class VARConfig:
    """Sizes of `eqxgen.models.var.VAR`."""

    dim: int = 1024
    """Width of a token."""
    depth: int = 16
    """Number of transformer blocks."""
    heads: int = 16
    """Attention heads; must divide dim."""
    hidden_dim: int | None = None
    """Inner width of each MLP; 4 dim by default."""
    dropout: float = 0.0
    """Dropout rate of the probabilities and the output of every branch."""
    qk_norm: bool = True
    """Normalise queries and keys."""
    epsilon: float = 1e-6
    """Of the norms."""
    null: bool = True
    """A null label, for classifier-free guidance."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim")
        heads_divide_dim(self)
        dropout(self)
        positive(self, "epsilon")

    @classmethod
    def var(cls, name: str = "d16") -> "VARConfig":
        """A published size, one of `VAR_SIZES`."""
        require(name in VAR_SIZES, f"name must be one of {', '.join(VAR_SIZES)}: got {name!r}")
        depth = VAR_SIZES[name]
        return cls(dim=64 * depth, depth=depth, heads=depth)
