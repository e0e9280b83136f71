"""Reparametrised weights: weight normalisation and spectral normalisation."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._mesh import varying

START = 15
"""Power iterations of `SpectralNorm.init_state`, as in torch."""


class WeightNorm(eqx.Module):
    """The layer with direction and length of each output's weight learned separately (Salimans and Kingma 2016,
    arXiv:1602.07868, equation 2): `gain * weight / |weight|`, equal to the given layer at initialisation.

    Lengths are computed in float32. `equinox.nn.WeightNorm` is not used because two of its layers never compare equal,
    so that each is compiled again.

    Args:
        layer: a layer with a field `weight` like that of `Projection` `(out, in)` or `Convolution` `(*kernel, in,
            out)`.
    """

    layer: Any
    gain: Float[Array, "*ones_and_outputs"]

    def __init__(self, layer: Any, *, key: PRNGKeyArray | None = None):
        inner = inner_axes(layer)
        self.layer, self.gain = layer, _length(layer.weight, inner)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        weight = self.layer.weight.astype(jnp.float32)
        scale = self.gain.astype(jnp.float32) / _length(weight, inner_axes(self.layer))
        return with_weight(self.layer, weight * scale)(x, key=key)


class Power(NamedTuple):
    """The state of `SpectralNorm`: estimates of the first left and right singular vectors, of length 1, in float32."""

    left: Float[Array, " outputs"]
    right: Float[Array, " inputs"]


class SpectralNorm(eqx.Module):
    """The layer with its weight divided by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    The value is `left @ weight @ right`. Power iteration updates both vectors in training and leaves them in inference.
    The gradient passes through the weight only. Equal to torch's `spectral_norm`. The call is `y, state = layer(x,
    state)`; over a batch, `jax.vmap(layer, in_axes=(0, None), out_axes=(0, None))`, as all examples share the state.

    `equinox.nn.SpectralNorm` is not used because it takes the first axis of every weight as the outputs; those of our
    convolutions are the last axis.

    Args:
        layer: a layer with a field `weight` like that of `Projection` `(out, in)` or `Convolution` `(*kernel, in,
            out)`.
        iterations: power iterations of each call in training.
        epsilon: lower bound of the length that a vector is divided by.
    """

    layer: Any
    inference: bool
    iterations: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        layer: Any,
        *,
        iterations: int = 1,
        epsilon: float = 1e-12,
        inference: bool = False,
        key: PRNGKeyArray | None = None,
    ):
        _check.positive(iterations=iterations)
        _check.epsilon(epsilon)
        inner_axes(layer)
        self.layer, self.iterations, self.epsilon, self.inference = layer, iterations, epsilon, inference

    def init_state(self) -> Power:
        """Fifteen iterations on the weight, from vectors of a fixed key."""
        matrix = _matrix(self.layer)
        left, right = (jr.normal(key, (size,)) for key, size in zip(jr.split(jr.key(0)), matrix.shape))
        return self._iterate(matrix, Power(left, right), START)

    def __call__(
        self, x: Array, state: Power, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Array, Power]:
        matrix = _matrix(self.layer)
        if not (self.inference if inference is None else inference):
            state = self._iterate(jax.lax.stop_gradient(matrix), state, self.iterations)
        largest = state.left @ matrix @ state.right
        return with_weight(self.layer, self.layer.weight.astype(jnp.float32) / largest)(x, key=key), state

    def _iterate(self, matrix: Float[Array, "outputs inputs"], state: Power, times: int) -> Power:
        state = Power(*(varying(vector, matrix) for vector in state))
        unit = lambda vector: vector / jnp.maximum(jnp.linalg.norm(vector), self.epsilon)

        def once(state: Power, _: None):
            left = unit(matrix @ state.right)
            return Power(left, unit(left @ matrix)), None

        return jax.lax.scan(once, state, length=times)[0]


def inner_axes(layer: Any) -> tuple[int, ...]:
    """The axes of a layer's weight that each output sums over, counted from the last, as stacked weights need.

    Raises:
        ValueError: the layer has no weight of at least two axes.
    """
    weight = getattr(layer, "weight", None)
    if weight is None or not eqx.is_array(weight) or weight.ndim < 2:
        raise ValueError(
            f"layer must have a weight of at least two axes, as Projection and Convolution: got {type(layer).__name__}"
        )
    return (-1,) if weight.ndim == 2 else tuple(range(-weight.ndim, -1))


def with_weight(layer: Any, weight: Array) -> Any:
    """The layer with another weight, cast to the dtype of its own."""
    return eqx.tree_at(lambda layer: layer.weight, layer, weight.astype(layer.weight.dtype))


def _length(weight: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.sum(weight.astype(jnp.float32) ** 2, axis=axes, keepdims=True))


def _matrix(layer: Any) -> Float[Array, "outputs inputs"]:
    """The weight with a row for each output."""
    weight = layer.weight.astype(jnp.float32)
    return weight if weight.ndim == 2 else weight.reshape(-1, weight.shape[-1]).T
