"""Feed-forward layers of a transformer block, plain and gated."""

import math

import equinox as eqx
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.activation import Activation
from eqxgen.nn.drop import Dropout
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.rng import RNG


class MLP(eqx.Module):
    """Two projections with an activation between and dropout after (Vaswani et al. 2017, equation 2).

    Args:
        dim: size of the last axis, kept.
        hidden_dim: size between the two; 4 * dim by default.
        activation: a name in `eqxgen.nn.activation.ACTIVATIONS`.
        dropout: rate after the second projection.
        bias: adds biases to the projections.
        init: initializer of the weights.
    """

    up: Projection
    down: Projection
    activation: Activation
    dropout: Dropout

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        bias: bool = True,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.up, self.down = _projections(dim, hidden_dim, 1, bias, init, key)
        self.activation, self.dropout = Activation(activation), Dropout(dropout)

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*leading dim"]:
        return self.dropout(self.down(self.activation(self.up(x))), key=key, inference=inference)


class GLU(eqx.Module):
    """A gated MLP: `down(up(x) * activation(gate(x)))` (Shazeer 2020, arXiv:2002.05202).

    The activation names the variant: "swish" is SwiGLU, "gelu" GEGLU, "relu" ReGLU, "identity" the bilinear layer, and
    "sigmoid" the original gated linear unit (Dauphin et al. 2016, arXiv:1612.08083).

    `up` and `gate` are one projection, in which the two rows of each hidden unit are neighbours, `up` before `gate`, so
    that tensor parallelism splits its outputs by whole hidden units.

    Args:
        dim: size of the last axis, kept.
        hidden_dim: size of the gated vector. By default as in LLaMA: 8/3 dim, which has as many parameters as an `MLP`
            of 4 dim, rounded up to a multiple of 256. Set it in a narrow model, where that rounding is coarse.
        activation: of the gate; a name in `eqxgen.nn.activation.ACTIVATIONS`.
        dropout: rate after the last projection.
        bias: adds biases to the projections; the transformers of both papers have none.
        init: initializer of the weights.
    """

    up: Projection  # outputs in the order (hidden_dim, its value then its gate)
    down: Projection
    activation: Activation
    dropout: Dropout

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        *,
        activation: str = "swish",
        dropout: float = 0.0,
        bias: bool = False,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim)
        hidden_dim = 256 * math.ceil(8 * dim / 3 / 256) if hidden_dim is None else hidden_dim
        self.up, self.down = _projections(dim, hidden_dim, 2, bias, init, key)
        self.activation, self.dropout = Activation(activation), Dropout(dropout)

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*leading dim"]:
        both = rearrange(self.up(x), "... (hidden parts) -> ... hidden parts", parts=2)
        value, gate = (part[..., 0] for part in jnp.split(both, 2, axis=-1))
        hidden = value * self.activation(gate)
        return self.dropout(self.down(hidden), key=key, inference=inference)


def _projections(
    dim: int, hidden_dim: int, parts: int, bias: bool, init: Initializer, key: PRNGKeyArray
) -> tuple[Projection, Projection]:
    """From `dim` to `parts * hidden_dim`, and from `hidden_dim` back."""
    _check.positive(hidden_dim=hidden_dim)
    keys = RNG(key)
    up = Projection(dim, parts * hidden_dim, bias=bias, init=init, key=next(keys))
    return up, Projection(hidden_dim, dim, bias=bias, init=init, key=next(keys))
