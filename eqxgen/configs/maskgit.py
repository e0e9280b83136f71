"""Sizes of MaskGIT (Chang et al. 2022, arXiv:2202.04200)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, require


@dataclasses.dataclass(frozen=True)
class MaskGITConfig:
    """Sizes of `eqxgen.models.maskgit.MaskGIT`."""

    dim: int = 768
    """Width of a token."""
    depth: int = 24
    """Number of transformer blocks."""
    heads: int = 16
    """Attention heads; must divide dim."""
    hidden_dim: int = 3072
    """Inner width of each MLP."""
    dropout: float = 0.1
    """Dropout rate, of attention probabilities and of every residual branch."""
    placement: str = "post"
    """Place of the norms: post (the paper's, as BERT) or pre."""
    null: bool = True
    """A null label, for classifier-free guidance. Without it the table is the published weights', and the bias of the
    head has an entry for each of its rows, of which those of the codes are used."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim")
        heads_divide_dim(self)
        dropout(self)
        require(self.placement in ("pre", "post"), f"model.placement must be pre or post: got {self.placement!r}")

    @classmethod
    def base(cls) -> "MaskGITConfig":
        """The paper's model for ImageNet (section 4.1): 24 layers, 768 wide, 172 M parameters here."""
        return cls()

    @classmethod
    def published(cls) -> "MaskGITConfig":
        """The published weights of that model, which have no null label; see `eqxgen.pretrained.maskgit`."""
        return cls(null=False)
