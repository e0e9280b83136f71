"""Sizes and variants of T5, with the published presets."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, one_of, positive, require

T5_SIZES = {
    "small": (512, 6, 8, 64, 2048),
    "base": (768, 12, 12, 64, 3072),
    "large": (1024, 24, 16, 64, 4096),
    "3b": (1024, 24, 32, 128, 16384),
    "11b": (1024, 24, 128, 128, 65536),
}
"""Width, depth, heads, their width and the MLPs' of version 1.0 (Raffel et al. 2020, section 3.7)."""
T5_SIZES_V1_1 = {
    "small": (512, 8, 6, 64, 1024),
    "base": (768, 12, 12, 64, 2048),
    "large": (1024, 24, 16, 64, 2816),
    "xl": (2048, 24, 32, 64, 5120),
    "xxl": (4096, 24, 64, 64, 10240),
}
"""The same of version 1.1, as published with its weights."""
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swish")


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes and parts of `eqxgen.models.t5.T5`; T5-base's of version 1.0 by default."""

    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Blocks of the encoder."""
    decoder_depth: int | None = None
    """Blocks of the decoder; by default depth."""
    heads: int = 12
    """Attention heads."""
    head_dim: int = 64
    """Width of a head; heads * head_dim may differ from dim."""
    hidden_dim: int = 3072
    """Inner width of each MLP."""
    context: int = 512
    """Tokens that decoding has memory for; positions are relative, so that a call takes any number."""
    activation: str = "relu"
    """Of the MLPs: relu, gelu, gelu_tanh or swish."""
    gated: bool = False
    """Gated MLPs, as in version 1.1 with gelu_tanh."""
    tied: bool = True
    """The embedding's table as the head; version 1.1 has a head of its own."""
    scaled: bool | None = None
    """States times 1 / sqrt(dim) before the head; by default where it is tied."""
    buckets: int = 32
    """Classes of distances."""
    max_distance: int = 128
    """Approximate start of the last class."""
    epsilon: float = 1e-6
    """Of the norms."""
    dropout: float = 0.1
    """Dropout rate, of the embeddings, attention probabilities, every residual branch and the last states."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "decoder_depth", "heads", "head_dim", "hidden_dim", "context")
        one_of(self, "activation", ACTIVATIONS)
        positive(self, "epsilon")
        dropout(self)
        good = self.buckets >= 4 and self.buckets % 4 == 0
        require(good, f"model.buckets must be a positive multiple of 4: got {self.buckets}")
        require(
            self.max_distance > self.buckets // 2,
            f"model.max_distance must be greater than model.buckets / 2 = {self.buckets // 2}: got {self.max_distance}",
        )

    @property
    def head_scale(self) -> float:
        """Factor of the states before the head."""
        return self.dim**-0.5 if (self.tied if self.scaled is None else self.scaled) else 1.0

    @classmethod
    def v1_0(cls, name: str = "base") -> "T5Config":
        """A published size of version 1.0, one of `T5_SIZES`."""
        require(name in T5_SIZES, f"name must be one of {', '.join(T5_SIZES)}: got {name!r}")
        dim, depth, heads, head_dim, hidden_dim = T5_SIZES[name]
        return cls(dim=dim, depth=depth, heads=heads, head_dim=head_dim, hidden_dim=hidden_dim)

    @classmethod
    def v1_1(cls, name: str = "base") -> "T5Config":
        """A published size of version 1.1, one of `T5_SIZES_V1_1`: GEGLU (Shazeer 2020), a head of its own."""
        require(name in T5_SIZES_V1_1, f"name must be one of {', '.join(T5_SIZES_V1_1)}: got {name!r}")
        dim, depth, heads, head_dim, hidden_dim = T5_SIZES_V1_1[name]
        sizes = cls(dim=dim, depth=depth, heads=heads, head_dim=head_dim, hidden_dim=hidden_dim)
        return dataclasses.replace(sizes, activation="gelu_tanh", gated=True, tied=False)
