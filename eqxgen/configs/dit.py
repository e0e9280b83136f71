"""Sizes of DiT (Peebles and Xie 2023, arXiv:2212.09748)."""

import dataclasses

from eqxgen.configs._check import at_least_one, heads_divide_dim, require


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Sizes of `eqxgen.models.dit.DiT`."""

    dim: int = 768
    """Width of a token; a multiple of 4, for the positions."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide dim."""
    hidden_dim: int = 3072
    """Inner width of each MLP."""
    patch: int = 2
    """Side of a token, in entries of the latent."""
    learn_variance: bool = True
    """Prediction of the noise's variance as well."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim", "patch")
        require(self.dim % 4 == 0, f"model.dim must be a multiple of 4: got {self.dim}")
        heads_divide_dim(self)

    @classmethod
    def base(cls) -> "DiTConfig":
        """DiT-B/2 (table 1): 130 M parameters."""
        return cls()

    @classmethod
    def xlarge(cls) -> "DiTConfig":
        """DiT-XL/2 (table 1): 675 M parameters."""
        return cls(dim=1152, depth=28, heads=16, hidden_dim=4608)
