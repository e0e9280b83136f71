"""Conditioning: features shifted and scaled by a vector of time, class or text."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer, Projection, torch_uniform

_zeros = jax.nn.initializers.zeros


class AdaLN(eqx.Module):
    """`norm(x) * (1 + scale) + shift`, with scale and shift from a condition: adaptive layer norm.

    The norm has no parameters. Shift and scale are a projection of `silu(condition)` that is zero at initialisation, so
    that the layer starts as the norm alone (Peebles and Xie 2023, arXiv:2212.09748, section 3.2; Perez et al. 2018,
    arXiv:1709.07871, for the 1 +).

    Args:
        dim: size of the last axis of x.
        condition_dim: size of the condition; `dim` by default.
        epsilon: of the norm.
        rms: an RMS norm with a learned scale, as in LightningDiT (Yao et al. 2025, arXiv:2501.01423), in place of the
            layer norm.
        init: initializer of the projection's weights.

    Raises:
        ValueError: x has another width, or the condition is not one vector of `condition_dim` entries.
    """

    modulation: Projection  # outputs: shift, then scale
    scale: Float[Array, " dim"] | None
    dim: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        condition_dim: int | None = None,
        *,
        epsilon: float = 1e-6,
        rms: bool = False,
        init: Initializer = _zeros,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim)
        _check.epsilon(epsilon)
        self.modulation = Projection(dim if condition_dim is None else condition_dim, 2 * dim, init=init, key=key)
        self.scale = jnp.ones(dim) if rms else None
        self.dim, self.epsilon = dim, epsilon

    def __call__(
        self,
        x: Float[Array, "*leading dim"],
        condition: Float[Array, " condition_dim"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading dim"]:
        shift, scale = _parts(self.modulation, x, condition, 2)
        return _normed(x, self.scale, (shift, scale), self.epsilon)


class AdaLNZero(eqx.Module):
    """An `AdaLN` before a residual branch and the gate after it: `x + gate * f(y)` with `y, gate = layer(x,
    condition)`.

    Shift, scale and gate are a projection of `silu(condition)` that is zero at initialisation, so that the branch
    starts by adding nothing (Peebles and Xie 2023, arXiv:2212.09748, section 3.2; figure 3).

    Args:
        dim: size of the last axis of x.
        condition_dim: size of the condition; `dim` by default.
        epsilon: of the norm.
        rms: as in `AdaLN`.
    """

    modulation: Projection  # outputs: shift, then scale, then gate
    scale: Float[Array, " dim"] | None
    dim: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        condition_dim: int | None = None,
        *,
        epsilon: float = 1e-6,
        rms: bool = False,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim)
        _check.epsilon(epsilon)
        self.modulation = Projection(dim if condition_dim is None else condition_dim, 3 * dim, init=_zeros, key=key)
        self.scale = jnp.ones(dim) if rms else None
        self.dim, self.epsilon = dim, epsilon

    def __call__(
        self,
        x: Float[Array, "*leading dim"],
        condition: Float[Array, " condition_dim"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*leading dim"], Float[Array, "*ones dim"]]:
        """The modulated norm of x, and the gate, of x's rank."""
        shift, scale, gate = _parts(self.modulation, x, condition, 3)
        return _normed(x, self.scale, (shift, scale), self.epsilon), gate


class FiLM(eqx.Module):
    """`x * (1 + scale) + shift` for every channel, with scale and shift linear in a condition (Perez et al. 2018,
    arXiv:1709.07871, equation 2 and section 7.2 for the 1 +).

    Args:
        dim: size of the last axis of x; its other axes are positions.
        condition_dim: size of the condition; `dim` by default.
        init: initializer of the projection's weights. By default uniform in ±1/sqrt(condition_dim); zeros make the
            layer the identity at initialisation.
    """

    modulation: Projection  # outputs: shift, then scale
    dim: int = eqx.field(static=True)

    def __init__(
        self, dim: int, condition_dim: int | None = None, *, init: Initializer = torch_uniform, key: PRNGKeyArray
    ):
        _check.positive(dim=dim)
        self.modulation = Projection(dim if condition_dim is None else condition_dim, 2 * dim, init=init, key=key)
        self.dim = dim

    def __call__(
        self,
        x: Float[Array, "*leading dim"],
        condition: Float[Array, " condition_dim"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading dim"]:
        shift, scale = _parts(self.modulation, x, condition, 2, activation=lambda x: x)
        return x * (1 + scale) + shift


def _normed(x: Array, scale: Array | None, modulation: tuple[Array, Array], epsilon: float) -> Array:
    """A layer norm, or an RMS norm with a scale, modulated in the same pass."""
    if scale is None:
        return ops.layer_norm(x, modulation=modulation, epsilon=epsilon)
    return ops.rms_norm(x, scale, modulation=modulation, epsilon=epsilon)


def _parts(modulation: Projection, x: Array, condition: Array, count: int, activation=jax.nn.silu) -> list[Array]:
    """The projection of the condition in `count` parts, each of x's rank with 1 on all axes but the last."""
    _check.last_axis(x, "dim", modulation.out_dim // count)
    _check.example(condition, name="condition", condition_dim=modulation.in_dim)
    parts = modulation(activation(condition)).astype(x.dtype)
    return jnp.split(parts.reshape(*(1,) * (x.ndim - 1), -1), count, axis=-1)
