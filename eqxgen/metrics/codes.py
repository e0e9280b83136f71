"""Use of a codebook."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer


class CodeCounts(NamedTuple):
    """Occurrences of each code of a codebook; `CodeCounts.of(codes)` is the empty count."""

    counts: Float[np.ndarray, " codes"]

    @classmethod
    def of(cls, codes: int) -> "CodeCounts":
        """Counts of a codebook of so many codes, all 0."""
        return cls(np.zeros(codes))

    def update(self, ids: Integer[np.ndarray, "..."]) -> "CodeCounts":
        """With more ids in [0, codes).

        Raises:
            ValueError: an id is out of range.
        """
        flat, codes = np.asarray(ids).reshape(-1), len(self.counts)
        if flat.size and not (flat.min() >= 0 and flat.max() < codes):
            raise ValueError(f"ids must be in [0, {codes}): got {flat.min()} to {flat.max()}")
        return self._make((self.counts + np.bincount(flat, minlength=codes),))

    def merge(self, other: "CodeCounts") -> "CodeCounts":
        """With what another one has seen."""
        return self._make((self.counts + other.counts,))

    def usage(self) -> float:
        """Share of the codes that occur at all."""
        return float(np.mean(self.counts > 0))

    def perplexity(self) -> float:
        """exp of the entropy of the codes' frequencies: from 1 (one code) to `codes` (all alike)."""
        shares = self.counts / max(self.counts.sum(), 1)
        used = shares[shares > 0]
        return float(np.exp(-np.sum(used * np.log(used))))
