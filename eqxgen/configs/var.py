"""Sizes of transformers that predict image tokens scale by scale: VAR's (Tian et al. 2024, arXiv:2404.02905)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, positive, require

VAR_SIZES = {"d16": 16, "d20": 20, "d24": 24, "d30": 30}
"""Depth of the published models (table 1 and section 4 of the paper): 310 M, 600 M, 1.0 B and 2.0 B parameters. A block
has as many heads of 64 as there are blocks.
"""


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
