"""Sizes of U-ViT (Bao et al. 2023, arXiv:2209.12152)."""

import dataclasses

from eqxgen.configs._check import at_least_one, heads_divide_dim, require


@dataclasses.dataclass(frozen=True)
class UViTConfig:
    """Sizes of `eqxgen.models.denoisers.uvit.UViT`."""

    dim: int = 512
    """Width of a token; even."""
    depth: int = 13
    """Number of blocks; odd: two halves with skips between them, and a middle."""
    heads: int = 8
    """Attention heads; must divide dim."""
    hidden_dim: int = 2048
    """Inner width of each MLP."""
    patch: int = 2
    """Side of a token, in entries of the image or latent."""
    time_mlp: bool = False
    """Two projections of the time's waves before they become a token."""
    qkv_bias: bool = False
    """Biases of queries, keys and values."""
    convolution: bool = True
    """A convolution over the assembled image at the end."""
    null: bool = True
    """A row for no class, with which labels are dropped for guidance."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim", "patch")
        require(self.dim % 2 == 0, f"model.dim must be even: got {self.dim}")
        require(self.depth >= 3 and self.depth % 2 == 1, f"model.depth must be odd and at least 3: got {self.depth}")
        heads_divide_dim(self)

    @classmethod
    def of(cls, size: str, patch: int = 2) -> "UViTConfig":
        """U-ViT of the sizes small, mid, large and huge (table 1) with any patch: U-ViT-S/2 to U-ViT-H/4.

        Raises:
            ValueError: another size.
        """
        require(size in SIZES, f"size must be one of {', '.join(SIZES)}: got {size!r}")
        dim, depth, heads = SIZES[size]
        return cls(dim=dim, depth=depth, heads=heads, hidden_dim=4 * dim, patch=patch, convolution=size != "huge")

    @classmethod
    def small(cls) -> "UViTConfig":
        """U-ViT-S/2 (table 1): 44 M parameters."""
        return cls.of("small")

    @classmethod
    def mid(cls) -> "UViTConfig":
        """U-ViT-M/2 (table 1): 131 M parameters."""
        return cls.of("mid")

    @classmethod
    def large(cls) -> "UViTConfig":
        """U-ViT-L/2 (table 1): 287 M parameters."""
        return cls.of("large")

    @classmethod
    def huge(cls) -> "UViTConfig":
        """U-ViT-H/2 (table 1): 501 M parameters."""
        return cls.of("huge")

    @classmethod
    def textbrush(cls) -> "UViTConfig":
        """Small, for digits of 28 or 32 pixels: Text Brush's tokens of image, time and class; the sizes are ours."""
        return cls(dim=128, depth=7, heads=4, hidden_dim=512, patch=4)


SIZES = {"small": (512, 13, 8), "mid": (768, 17, 12), "large": (1024, 21, 16), "huge": (1152, 29, 16)}
"""Width, depth and heads by size."""
