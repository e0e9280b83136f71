"""Magnitude-preserving layers and operations (Karras et al. 2023, EDM2, arXiv:2312.02696, appendix
B).

The magnitude of a vector is the root mean square of its entries. For inputs of magnitude 1 with uncorrelated entries,
the outputs have magnitude 1. Written from the paper's equations.
"""

import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.nn.norm.reparam import inner_axes, with_weight

Tree = TypeVar("Tree", bound=PyTree)
EPSILON = 1e-4


class MagnitudePreserving(eqx.Module):
    """The layer with the weights of each output normalised to length 1 (equations 47 and 66).

    The gradient is orthogonal to the parameters, so that each step lengthens them and lowers the effective learning
    rate. Call `force_weight_norm`, the paper's forced weight normalisation, after each step of the optimiser: it sets
    them back to magnitude 1.

    Args:
        layer: a layer without a bias, with a field `weight` like that of `Projection` or `Convolution`. A bias is a
            further input of ones in the paper.
        gain: initial value of a learned factor of the output, such as 0 for the last layer of a network; none by
            default.

    Raises:
        ValueError: the layer has a bias, or no weight.
    """

    layer: Any
    gain: Float[Array, ""] | None
    inner: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, layer: Any, *, gain: float | None = None, key: PRNGKeyArray | None = None):
        self.inner = inner_axes(layer)
        if getattr(layer, "bias", None) is not None:
            raise ValueError(
                f"layer must have no bias, which would change the magnitude: got {type(layer).__name__} with one"
            )
        self.layer = with_weight(layer, to_magnitude_one(layer.weight, self.inner))
        self.gain = None if gain is None else jnp.asarray(gain, jnp.float32)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        weight = to_magnitude_one(self.layer.weight, self.inner)
        weight = weight / math.sqrt(math.prod(weight.shape[axis] for axis in self.inner))
        weight = weight if self.gain is None else weight * self.gain.astype(jnp.float32)
        return with_weight(self.layer, weight)(x, key=key)


def force_weight_norm(model: Tree) -> Tree:
    """The model with the parameters of each `MagnitudePreserving` layer at magnitude 1; for use after every update."""

    def force(node: Any) -> Any:
        if not isinstance(node, MagnitudePreserving) or not eqx.is_inexact_array(node.layer.weight):
            return node  # also where the weight is frozen
        return eqx.tree_at(
            lambda node: node.layer, node, with_weight(node.layer, to_magnitude_one(node.layer.weight, node.inner))
        )

    return jax.tree.map(force, model, is_leaf=lambda node: isinstance(node, MagnitudePreserving))


def to_magnitude_one(
    x: Float[Array, "*shape"], axis: int | tuple[int, ...] = -1, *, epsilon: float = EPSILON
) -> Float[Array, "*shape"]:
    """`x / (epsilon + magnitude)` over the axes, computed in float32; over the channels, the paper's pixel norm."""
    wide = x.astype(jnp.float32)
    square = jnp.mean(wide**2, axis=axis, keepdims=True)
    # The root has no gradient at zero: for a zero vector it is taken of 1 and replaced.
    magnitude = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return (wide / (magnitude + epsilon)).astype(x.dtype)


def mp_silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """swish(x) / 0.596, the root mean square of swish on normal entries (equation 81)."""
    return jax.nn.silu(x) / 0.596


def mp_sum(a: Float[Array, "*shape"], b: Float[Array, "*shape"], t: float = 0.3) -> Float[Array, "*shape"]:
    """`((1 - t) a + t b) / sqrt((1 - t)² + t²)` (equation 88)."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def mp_cat(
    a: Float[Array, "*leading a_channels"], b: Float[Array, "*leading b_channels"], t: float = 0.5
) -> Float[Array, "*leading channels"]:
    """Concatenation along the last axis, scaled so that the contributions to the magnitude are as `1 - t` to `t` for
    any widths (equation 103).
    """
    whole = math.sqrt(a.shape[-1] + b.shape[-1]) / math.hypot(1 - t, t)
    return jnp.concatenate(
        [a * ((1 - t) * whole / math.sqrt(a.shape[-1])), b * (t * whole / math.sqrt(b.shape[-1]))], axis=-1
    )
