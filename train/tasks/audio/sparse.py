"""Options of sparse weights. Imports nothing heavy."""

import dataclasses

from ..._errors import require


@dataclasses.dataclass(frozen=True)
class SparseConfig:
    """Zeros in the recurrent layer's weights, of the smallest magnitudes, more and more of them.

    Raises:
        ValueError: a number is out of its range.
    """

    sparsity: float = 0.0
    """Share of blocks that are zero at the end; 0: none."""
    block: int = 16
    """Rows of a block, which is one column wide."""
    start: int = 100
    """Step at which the first weights become zero."""
    end: int = 1000
    """Step from which on the share no longer rises."""
    every: int = 20
    """Steps between choices of the blocks."""

    def __post_init__(self):
        require(0 <= self.sparsity < 1, f"sparse.sparsity must be in [0, 1): got {self.sparsity}")
        require(self.block >= 1, f"sparse.block must be at least 1: got {self.block}")
        require(self.every >= 1, f"sparse.every must be at least 1: got {self.every}")
        require(
            0 <= self.start < self.end,
            f"sparse.start must be at least 0 and before sparse.end: got {self.start} and {self.end}",
        )

    def due(self, step: int) -> bool:
        """True at a step before which blocks are chosen."""
        return self.sparsity > 0 and self.start <= step and step % self.every == 0
