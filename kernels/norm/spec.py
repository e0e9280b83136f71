"""The static part of a norm, and the dtype of its sums."""

import dataclasses

import jax.numpy as jnp
from jax import Array

Arrays = tuple[Array, ...]
Modulation = tuple[Array, Array] | None


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static part of a norm.

    A norm is taken of `x` as `(*batch, *spatial, groups, channels)`, with `groups == 1` for layer norm and RMS norm.
    Elements that agree in `batch` and `groups` share their statistics. Layer norm and RMS norm have `batch_dims=None`:
    all leading axes are `batch`.
    """

    epsilon: float
    center: bool = True
    scale_offset: float = 0.0
    groups: int = 1
    batch_dims: int | None = None
    activation: str | None = None

    def batch(self, ndim: int) -> int:
        """The number of batch axes of an x of rank `ndim`."""
        return ndim - 1 if self.batch_dims is None else self.batch_dims

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of the grouped view, of rank `ndim`, over which the statistics are taken."""
        spatial = range(self.batch(ndim - 1), ndim - 2)
        return (*spatial, ndim - 1)


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of statistics and sums: float32, or float64 for float64 input."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
