"""Sizes of the recurrent language model (Graves 2013, arXiv:1308.0850)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, require


@dataclasses.dataclass(frozen=True)
class RNNConfig:
    """Sizes of `eqxgen.models.rnn.RNN`."""

    dim: int = 256
    """Width of the embedding and of every layer."""
    depth: int = 2
    """Number of recurrent layers."""
    cell: str = "lstm"
    """lstm, gru or rnn."""
    dropout: float = 0.0
    """Dropout rate, of the embedding and of every layer's output."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth")
        require(self.cell in ("lstm", "gru", "rnn"), f"model.cell must be lstm, gru or rnn: got {self.cell!r}")
        dropout(self)
