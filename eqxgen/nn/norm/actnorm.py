"""Activation normalisation: an affine map initialised from data."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check


class ActNorm(eqx.Module):
    """`scale * (x + shift)` for each channel, invertible (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1).

    The identity until `started` on a batch, which then has zero mean and unit variance. The deviation is
    taming-transformers': by n - 1, with 1e-6 added. There the first call initialises the layer silently; here `started`
    returns an initialised layer.

    Args:
        channels: size of the last axis.

    Raises:
        ValueError: x has another channel count.
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    channels: int = eqx.field(static=True)

    def __init__(self, channels: int, *, key: PRNGKeyArray | None = None):
        _check.positive(channels=channels)
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)
        self.channels = channels

    def started(self, batch: Float[Array, "*batch_spatial channels"]) -> "ActNorm":
        """The layer initialised to give this batch mean 0 and variance 1 in each channel, over all axes but the last.
        At least two values for each channel.
        """
        _check.last_axis(batch, "channels", self.channels)
        flat = batch.reshape(-1, self.channels).astype(jnp.float32)
        if len(flat) < 2:
            raise ValueError(f"batch must have at least 2 values for each channel: got shape {batch.shape}")
        start = (1 / (jnp.std(flat, 0, ddof=1) + 1e-6), -jnp.mean(flat, 0))
        return eqx.tree_at(lambda layer: (layer.scale, layer.shift), self, start)

    def __call__(
        self, x: Float[Array, "*spatial channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*spatial channels"]:
        _check.last_axis(x, "channels", self.channels)
        ones = (None,) * (x.ndim - 1)
        return self.scale.astype(x.dtype)[ones] * (x + self.shift.astype(x.dtype)[ones])

    def inverse(self, y: Float[Array, "*spatial channels"]) -> Float[Array, "*spatial channels"]:
        """The x with `layer(x) == y`."""
        _check.last_axis(y, "channels", self.channels)
        ones = (None,) * (y.ndim - 1)
        return y / self.scale.astype(y.dtype)[ones] - self.shift.astype(y.dtype)[ones]

    def logdet(self, x: Float[Array, "*spatial channels"]) -> Float[Array, ""]:
        """log |det ∂y/∂x|, the sum of log |scale| over channels and positions; it depends on the shape of x only."""
        _check.last_axis(x, "channels", self.channels)
        return x.size // self.channels * jnp.sum(jnp.log(jnp.abs(self.scale)))
