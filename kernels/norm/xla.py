"""The norms in plain XLA operations, with a backward pass that keeps only the mean and the reciprocal deviation."""

import dataclasses

from jax import Array

from .reference import finish
from .rules import Params, Stats, centred, plain_backward, spread, statistics
from .spec import Spec


@dataclasses.dataclass(frozen=True)
class Xla:
    """The backend of `rules.Backend` that runs everywhere."""

    spec: Spec

    def forward(self, x: Array, residual: Array | None, params: Params) -> tuple[Array, Array | None, Stats]:
        h = x if residual is None else x + residual
        stats = statistics(h, self.spec)
        x_hat = centred(h, stats, self.spec) * spread(stats.rstd, h, self.spec)
        return (
            finish(x_hat, params.scale, params.bias, params.modulation, self.spec).astype(x.dtype),
            None if residual is None else h,
            stats,
        )

    def backward(self, h: Array, stats: Stats | None, params: Params, dy: Array | None, dh: Array | None) -> tuple[Array, Params]:
        return plain_backward(h, stats, params, dy, dh, spec=self.spec)
