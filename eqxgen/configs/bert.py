"""Sizes of BERT, with the published presets."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, one_of, positive

POOLINGS = ("first", "mean", "max")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "swish")


@dataclasses.dataclass(frozen=True)
class BERTConfig:
    """Sizes of `eqxgen.models.bert.BERT`; BERT-base's by default (Devlin et al. 2018, section 3)."""

    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide dim."""
    hidden_dim: int | None = None
    """Inner width of each MLP; 4 dim by default."""
    context: int = 512
    """Tokens that the model sees at most."""
    types: int = 2
    """Kinds of token, as first and second text."""
    activation: str = "gelu"
    """Of the MLPs and the masked head: gelu, gelu_tanh, relu or swish."""
    epsilon: float = 1e-12
    """Of the norms."""
    dropout: float = 0.1
    """Dropout rate, of the embedding and every residual branch."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention probabilities."""
    head_dropout: float | None = None
    """Dropout rate before the classifier; by default dropout."""
    pooling: str = "first"
    """State that the pooled vector is made of: first, of the first token; mean or max, of each feature over the real
    tokens."""
    tied: bool = True
    """The embedding's table as the decoder of the masked head."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim", "context", "types")
        heads_divide_dim(self)
        one_of(self, "activation", ACTIVATIONS)
        one_of(self, "pooling", POOLINGS)
        positive(self, "epsilon")
        for name in ("dropout", "attention_dropout", "head_dropout"):
            dropout(self, name)

    @classmethod
    def base(cls) -> "BERTConfig":
        """BERT-base, 110 M parameters."""
        return cls()

    @classmethod
    def large(cls) -> "BERTConfig":
        """BERT-large, 340 M parameters."""
        return cls(dim=1024, depth=24, heads=16)
