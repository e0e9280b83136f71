"""Sizes of the recurrent language model (Graves 2013, arXiv:1308.0850), and of Mamba-2 (Dao and Gu 2024,
arXiv:2405.21060).
"""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, one_of, require


@dataclasses.dataclass(frozen=True)
class RNNConfig:
    """Sizes of `eqxgen.models.rnn.RNN`."""

    dim: int = 256
    """Width of the embedding and of every layer."""
    depth: int = 2
    """Number of recurrent layers."""
    cell: str = "lstm"
    """lstm, gru, rnn or mamba2."""
    dropout: float = 0.0
    """Dropout rate, of the embedding and of every layer's output."""
    state_dim: int | None = None
    """Columns of the state of each head of mamba2; 64 by default."""
    head_dim: int | None = None
    """Width of a head of mamba2, which must divide 2 * dim; 32 by default."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth")
        one_of(self, "cell", ("lstm", "gru", "rnn", "mamba2"))
        dropout(self)
        at_least_one(self, "state_dim", "head_dim")
        if self.cell == "mamba2":
            inner, width = 2 * self.dim, self.head_dim or 32
            require(inner % width == 0, f"model.head_dim must divide 2 * model.dim: got {inner} and {width}")
            return
        for name in ("state_dim", "head_dim"):
            value = getattr(self, name)
            require(value is None, f"model.{name} goes with model.cell=mamba2: got {value}, model.cell={self.cell}")
