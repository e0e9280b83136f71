"""Batch normalisation, with its running statistics handed in and out."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.nn import _check
from eqxgen.nn._batch import OverBatch, batch_sum


class BatchNormState(NamedTuple):
    """Statistics for inference, and the number of batches in them."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]
    batches: Int[Array, ""]


class BatchNorm(eqx.Module, OverBatch):
    """Zero mean and unit variance of each channel over the batch and all positions, then an affine map
    (arXiv:1502.03167).

    Equal to torch's `BatchNorm1d` and `BatchNorm2d` on channels-last `(*spatial, channels)`. The batch is the axis that
    the caller maps over:

        state = norm.init_state()
        y, state = jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    Inside `jax.shard_map`, with and without `check_vma`, `axis_name=("batch", "data")` takes the statistics over that
    mesh axis too (synchronised batch norm; `eqxgen.nn.synchronised` adds the axes to a whole model): count, sum and sum
    of squares around the running mean travel in one exchange. Statistics are float32; on one device the variance is
    taken around the mean, in a second pass.

    Args:
        channels: size of the last axis.
        epsilon: added to the variance.
        momentum: share of the new batch in the running statistics; `None` averages all batches alike, as torch. The
            running variance is unbiased (by n - 1), the one that normalises in training is not.
        affine: whether there are a scale, one at first, and a bias, zero at first.
        axis_name: the mapped and mesh axes over which a batch is spread; `None` takes one example's positions alone.
        inference: whether to normalise by the running statistics and leave them; a call's own `inference` comes first.

    Raises:
        ValueError: a number is out of its range; x has another channel count; in training there is a single value for
            each channel.
    """

    scale: Float[Array, " channels"] | None
    bias: Float[Array, " channels"] | None
    inference: bool
    channels: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    momentum: float | None = eqx.field(static=True)
    axis_name: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        axis_name: str | Sequence[str] | None = "batch",
        inference: bool = False,
        key: PRNGKeyArray | None = None,
    ):
        _check.positive(channels=channels)
        _check.epsilon(epsilon)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1] or None: got {momentum}")
        self.scale, self.bias = (jnp.ones(channels), jnp.zeros(channels)) if affine else (None, None)
        self.channels, self.epsilon, self.momentum, self.inference = channels, epsilon, momentum, inference
        self.axis_name = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())

    def init_state(self) -> BatchNormState:
        """Mean 0, variance 1, no batch yet."""
        return BatchNormState(jnp.zeros(self.channels), jnp.ones(self.channels), jnp.zeros((), jnp.int32))

    def __call__(
        self,
        x: Float[Array, "*spatial channels"],
        state: BatchNormState,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "*spatial channels"], BatchNormState]:
        """One example and the state after its batch.

        Args:
            weight: of the example in the statistics: 0 for padding, else 1.
        """
        _check.last_axis(x, "channels", self.channels)
        wide = widen(x)
        if self.inference if inference is None else inference:
            mean, variance = state.mean, state.variance
        else:
            mean, variance, count = self._statistics(wide, weight, state)
            state = self._updated(state, mean, variance, count)
        factor = jax.lax.rsqrt(variance + self.epsilon) * (
            1.0 if self.scale is None else self.scale.astype(variance.dtype)
        )
        ones = (None,) * (x.ndim - 1)
        y = (wide - mean[ones]) * factor[ones]
        return (y if self.bias is None else y + self.bias.astype(y.dtype)[ones]).astype(x.dtype), state

    def _statistics(
        self, x: Array, weight: Array | None, state: BatchNormState
    ) -> tuple[Array, Array, int | Float[Array, ""]]:
        """Mean, biased variance, and the number of values they are of."""
        positions = math.prod(x.shape[:-1])
        try:
            most = positions * math.prod(jax.lax.axis_size(name) for name in self.axis_name)
        except NameError as error:
            call = f"jax.vmap(norm, axis_name={self.axis_name[0]!r}, in_axes=(0, None), out_axes=(0, None))(x, state)"
            raise ValueError(
                f"axis_name={self.axis_name} must be axes of jax.vmap or of a mesh: got x of shape {x.shape} without "
                f"them; call {call}"
            ) from error
        if most < 2:
            raise ValueError(
                f"training needs at least 2 values for each channel: got shape {x.shape}, axis_name={self.axis_name}"
            )
        axes, ones = tuple(range(x.ndim - 1)), (None,) * (x.ndim - 1)
        if weight is None and not set(self.axis_name) & set(jax.sharding.get_abstract_mesh().manual_axes):
            mean = batch_sum([jnp.sum(x, axes)], self.axis_name)[0] / most
            return mean, batch_sum([jnp.sum((x - mean[ones]) ** 2, axes)], self.axis_name)[0] / most, most
        weight = jnp.ones((), x.dtype) if weight is None else weight.astype(x.dtype)
        shift = jax.lax.stop_gradient(state.mean.astype(x.dtype))
        around = x - shift[ones]
        sums = (weight * positions, weight * jnp.sum(around, axes), weight * jnp.sum(around**2, axes))
        count, first, second = batch_sum(sums, self.axis_name)
        some = jnp.maximum(count, 1)
        return shift + first / some, jnp.maximum(second / some - (first / some) ** 2, 0), count

    def _updated(
        self, state: BatchNormState, mean: Array, variance: Array, count: int | Float[Array, ""]
    ) -> BatchNormState:
        mean, variance = jax.lax.stop_gradient((mean, variance * count / jnp.maximum(count - 1, 1)))
        seen = jnp.asarray(count > 0)
        batches = state.batches + seen.astype(jnp.int32)
        share = 1 / jnp.maximum(batches, 1).astype(jnp.float32) if self.momentum is None else self.momentum
        blend = lambda old, new: jnp.where(seen, old + (share * (new - old)).astype(old.dtype), old)
        return BatchNormState(blend(state.mean, mean), blend(state.variance, variance), batches)
