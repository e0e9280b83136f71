"""Norms, on the fused kernels."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check


class LayerNorm(eqx.Module):
    """Zero mean and unit variance over the last axis, then an affine map; statistics in float32 (Ba et al. 2016,
    arXiv:1607.06450).

    Call it on the whole `(seq, dim)` array: mapped over tokens, each kernel program would get a single row.

    Args:
        dim: size of the last axis.
        epsilon: added to the variance.
        affine: adds a scale, one at initialisation, and a bias, zero at initialisation.
        bias: false leaves the bias out.
    """

    scale: Float[Array, " dim"] | None
    bias: Float[Array, " dim"] | None
    dim: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        epsilon: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
        key: PRNGKeyArray | None = None,
    ):
        _check.positive(dim=dim)
        _check.epsilon(epsilon)
        self.scale = jnp.ones(dim) if affine else None
        self.bias = jnp.zeros(dim) if affine and bias else None
        self.dim, self.epsilon = dim, epsilon

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading dim"]:
        _check.last_axis(x, "dim", self.dim)
        return ops.layer_norm(x, self.scale, self.bias, epsilon=self.epsilon)


class RMSNorm(eqx.Module):
    """Unit mean square over the last axis, then a scale; statistics in float32 (Zhang and Sennrich 2019,
    arXiv:1910.07467).

    Call it on the whole `(seq, dim)` array, as `LayerNorm`. Equal to torch's with the same epsilon; torch's default is
    the epsilon of the dtype.

    Args:
        dim: size of the last axis.
        epsilon: added to the mean square.
        affine: adds a scale, one at initialisation.
    """

    scale: Float[Array, " dim"] | None
    dim: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, dim: int, *, epsilon: float = 1e-6, affine: bool = True, key: PRNGKeyArray | None = None):
        _check.positive(dim=dim)
        _check.epsilon(epsilon)
        self.scale = jnp.ones(dim) if affine else None
        self.dim, self.epsilon = dim, epsilon

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading dim"]:
        _check.last_axis(x, "dim", self.dim)
        return ops.rms_norm(x, self.scale, epsilon=self.epsilon)


class GroupNorm(eqx.Module):
    """Zero mean and unit variance over each group of channels and all positions (Wu and He 2018, arXiv:1803.08494).

    Equal to torch's on channels-last `(*spatial, channels)`: group g has `channels / groups` neighbouring channels. All
    axes but the last are positions of one example: `jax.vmap` the layer over a batch.

    Args:
        channels: size of the last axis.
        groups: number of groups; it divides `channels`.
        epsilon: added to the variance.
    """

    scale: Float[Array, " channels"]
    bias: Float[Array, " channels"]
    channels: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels: int, groups: int = 32, *, epsilon: float = 1e-5, key: PRNGKeyArray | None = None):
        _check.positive(channels=channels, groups=groups)
        _check.divides(groups=groups, channels=channels)
        _check.epsilon(epsilon)
        self.scale, self.bias = jnp.ones(channels), jnp.zeros(channels)
        self.channels, self.groups, self.epsilon = channels, groups, epsilon

    def __call__(
        self,
        x: Float[Array, "*spatial channels"],
        *,
        activation: Literal["silu"] | None = None,
        modulation: tuple[Float[Array, " channels"], Float[Array, " channels"]] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*spatial channels"]:
        """`modulation=(shift, scale)`, which gives `norm(x) * (1 + scale) + shift`, and then `activation="silu"` are
        fused into the same pass.
        """
        _check.last_axis(x, "channels", self.channels)
        return ops.group_norm(
            x,
            self.scale,
            self.bias,
            groups=self.groups,
            activation=activation,
            modulation=modulation,
            epsilon=self.epsilon,
            batch_dims=0,
        )
