"""Block-sparse mask from a static pattern."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .base import Mask
from .fields import pytree


class _Pattern:
    """A boolean matrix as a static value, hashed and compared by its entries."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix
        self._key = (matrix.shape, matrix.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other) -> bool:
        return isinstance(other, _Pattern) and self._key == other._key

    def __repr__(self) -> str:
        return f"pattern{self.matrix.shape}"


@pytree(static=("pattern", "block"))
class BlockSparse(Mask):
    """Query i sees key j where `pattern[i // block, j // block]` holds. `pattern` is a boolean matrix known while
    tracing.
    """

    pattern: Any
    block: int

    def __post_init__(self):
        if isinstance(self.pattern, _Pattern):
            return
        if isinstance(self.pattern, Tracer):
            raise TypeError(
                "masks.BlockSparse: pattern must be known while tracing: use masks.Dense for a mask that is computed"
            )
        matrix = np.asarray(self.pattern)
        if matrix.dtype != bool:
            raise TypeError(f"masks.BlockSparse: pattern must be boolean: got {matrix.dtype}")
        if matrix.ndim != 2:
            raise ValueError(
                f"masks.BlockSparse: pattern must have two axes, query blocks and key blocks: got shape {matrix.shape}"
            )
        if isinstance(self.block, bool) or not isinstance(self.block, (int, np.integer)) or self.block < 1:
            raise ValueError(f"masks.BlockSparse: block must be a positive int: got {self.block!r}")
        object.__setattr__(self, "pattern", _Pattern(matrix))
        object.__setattr__(self, "block", int(self.block))

    @classmethod
    def strided(cls, blocks: int, *, block: int, stride: int, local: int = 1) -> "BlockSparse":
        """Each block sees the last `local` blocks up to itself and every `stride`-th before them (Child et al. 2019,
        causal).
        """
        if stride < 1 or local < 1:
            raise ValueError(
                f"masks.BlockSparse.strided: stride and local must be positive: got stride={stride}, local={local}"
            )
        i, j = np.indices((blocks, blocks))
        return cls((j <= i) & ((i - j < local) | (j % stride == stride - 1)), block)

    @classmethod
    def local_global(cls, blocks: int, *, block: int, local: int = 1, global_blocks: int = 1) -> "BlockSparse":
        """Each block sees `local` neighbours on each side, and all see and are seen by the first `global_blocks`
        (Longformer).
        """
        if local < 0 or global_blocks < 0:
            raise ValueError(
                f"masks.BlockSparse.local_global: counts must not be negative: got local={local}, "
                f"global_blocks={global_blocks}"
            )
        i, j = np.indices((blocks, blocks))
        return cls((abs(i - j) <= local) | (i < global_blocks) | (j < global_blocks), block)

    def check(self, q_seq, kv_seq):
        rows, columns = self.pattern.matrix.shape
        if rows != -(-q_seq // self.block) or columns != -(-kv_seq // self.block):
            raise ValueError(
                f"masks.BlockSparse: pattern must have one row and column per block: got shape {(rows, columns)} "
                f"for {q_seq} queries and {kv_seq} keys in blocks of {self.block}"
            )
        return self

    def allowed(self, i, j):
        rows, columns = self.pattern.matrix.shape
        return jnp.asarray(self.pattern.matrix)[
            jnp.minimum(i // self.block, rows - 1), jnp.minimum(j // self.block, columns - 1)
        ]

    def block_bounds(self, i0, i1, j0, j1):
        # A summed-area table gives the count in any rectangle by four look-ups.
        rows, columns = self.pattern.matrix.shape
        table = np.zeros((rows + 1, columns + 1), np.int32)
        table[1:, 1:] = self.pattern.matrix.cumsum(0).cumsum(1)
        numpy = all(isinstance(x, (int, np.integer, np.ndarray)) for x in (i0, i1, j0, j1))
        lib, area = (np, table) if numpy else (jnp, jnp.asarray(table))
        r0, r1 = lib.minimum(i0 // self.block, rows - 1), lib.minimum(i1 // self.block, rows - 1) + 1
        c0, c1 = lib.minimum(j0 // self.block, columns - 1), lib.minimum(j1 // self.block, columns - 1) + 1
        count = area[r1, c1] - area[r0, c1] - area[r1, c0] + area[r0, c0]
        return count > 0, count == (r1 - r0) * (c1 - c0)
