"""A learned scale of each feature."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check


class LayerScale(eqx.Module):
    """`scale * x` over the last axis, for the end of a residual branch (Touvron et al. 2021, arXiv:2103.17239, equation
    4; DINOv2).

    It is given to a sandwich `TransformerBlock` in place of its output norms.

    Args:
        dim: size of the last axis.
        value: of the scale at initialisation.

    Raises:
        ValueError: a number violates its constraint, or x has another last axis.
    """

    scale: Float[Array, " dim"]
    dim: int = eqx.field(static=True)

    def __init__(self, dim: int, value: float = 1e-5, *, key: PRNGKeyArray | None = None):
        _check.positive(dim=dim)
        _check.above_zero(value=value)
        self.scale, self.dim = jnp.full(dim, value), dim

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading dim"]:
        _check.last_axis(x, "dim", self.dim)
        return x * self.scale.astype(x.dtype)[(None,) * (x.ndim - 1)]
