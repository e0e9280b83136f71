"""Biases made on the fly."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=("slopes", "offset"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class ALiBi:
    """Attention with linear biases: `-slopes[head] * |i + offset - j|` is added to the logit of query i and key j.

    `slopes` is `(heads,)`; `offset`, a scalar, is the position of the first query among the keys, for decoding against
    a cache. Gradients flow to `slopes`.

    Source: Press et al. 2022, "Train Short, Test Long". Under a causal mask this is the paper's bias; without one it is
        symmetric.
    """

    slopes: Any
    offset: Any = 0

    @classmethod
    def geometric(cls, heads: int) -> "ALiBi":
        """The paper's slopes for a power of two of heads: 2^(-8/heads), its square, its cube, ..."""
        if heads < 1:
            raise ValueError(f"ALiBi: heads must be positive: got {heads}")
        return cls(2.0 ** (-8.0 * jnp.arange(1, heads + 1, dtype=jnp.float32) / heads))
