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
    mlp_epsilon: float = 1e-6
    """Epsilon of the norms before the MLPs, 1e-5 in diffusers; that of all others is 1e-6."""
    time_shift: int = 0
    """Subtracted from the number of the time's frequencies: 0 in the paper's code, 1 in diffusers'."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        require(self.mlp_epsilon > 0, f"model.mlp_epsilon must be positive: got {self.mlp_epsilon}")
        require(self.time_shift in (0, 1), f"model.time_shift must be 0 or 1: got {self.time_shift}")
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
