"""Sizes of class-conditional autoregressive models of image tokens: LlamaGen's (Sun et al. 2024, arXiv:2406.06525)."""

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
