"""Sizes and masks of MAGE (Li et al. 2022, arXiv:2211.09117)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, not_negative, require, typed


@dataclasses.dataclass(frozen=True)
class MAGEConfig:
    """Sizes of `eqxgen.models.mage.MAGE`; by default the paper's ViT-B."""

    dim: int = 768
    """Width of a token in the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder; must divide dim."""
    hidden_dim: int = 3072
    """Inner width of each MLP of the encoder."""
    decoder_dim: int = 768
    """Width of a token in the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder; must divide decoder_dim."""
    decoder_hidden_dim: int = 3072
    """Inner width of each MLP of the decoder."""
    dropout: float = 0.1
    """Dropout rate, of the embedding, of attention probabilities and of every residual branch."""
    head_gradient: bool = False
    """A gradient of the head into the embeddings that are its weights; the original has none."""
    projection: int = 0
    """Width of the vectors that MAGE-C contrasts; 0: no projection."""
    spare: int = 0
    """Rows of the table that nothing uses: 999 of the published one's 1,000 labels."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim")
        at_least_one(self, "decoder_dim", "decoder_depth", "decoder_heads", "decoder_hidden_dim")
        heads_divide_dim(self)
        require(
            self.decoder_dim % self.decoder_heads == 0,
            "model.decoder_heads must divide model.decoder_dim: got "
            f"model.decoder_dim={self.decoder_dim}, model.decoder_heads={self.decoder_heads}",
        )
        dropout(self)
        not_negative(self, "projection", "spare")

    @classmethod
    def base(cls) -> "MAGEConfig":
        """ViT-B of the paper: 12 layers and 8, 768 wide."""
        return cls()

    @classmethod
    def large(cls) -> "MAGEConfig":
        """ViT-L of the paper: 24 layers and 8, 1,024 wide."""
        return cls(1024, 24, 16, 4096, decoder_dim=1024, decoder_hidden_dim=4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskRatio:
    """Share of the tokens that training masks: a normal distribution cut off at both ends (section 3.2). The encoder
    does not see the least share of the tokens at all, of those that are masked.
    """

    mean: float = 0.55
    """Mean of the normal distribution."""
    deviation: float = 0.25
    """Standard deviation of the normal distribution."""
    least: float = 0.5
    """Smallest share, which is dropped before the encoder."""
    most: float = 1.0
    """Largest share."""

    def __post_init__(self):
        typed(self, "mask.")
        require(
            0 <= self.least < self.most <= 1,
            f"mask.least and mask.most must be in [0, 1], in this order: got {self.least} and {self.most}",
        )
        require(0 <= self.mean <= 1, f"mask.mean must be in [0, 1]: got {self.mean}")
        require(0 < self.deviation < float("inf"), f"mask.deviation must be positive: got {self.deviation}")
