"""What every backend is told about a norm, besides its arrays."""

import dataclasses

from jax import Array

Modulation = tuple[Array, Array] | None


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static part of a norm.

    A norm sees `x` as `(*batch, *spatial, groups, channels)`, with `groups == 1` for layer norm and RMS norm. Elements
    that agree in `batch` and `groups` share their statistics: for layer norm and RMS norm all leading axes are `batch`
        (`batch_dims=None`).
    """

    epsilon: float
    center: bool = True
    scale_offset: float = 0.0
    groups: int = 1
    batch_dims: int | None = None
    activation: str | None = None

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of the grouped view, of rank `ndim`, over which the statistics are taken."""
        spatial = range(ndim - 2 if self.batch_dims is None else self.batch_dims, ndim - 2)
        return (*spatial, ndim - 1)
