"""The feed-forward half of a transformer block, plain and gated."""

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
        bias: whether the projections have biases.
        init: how the weights are drawn.
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
        keys = RNG(key)
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.up = Projection(dim, hidden_dim, bias=bias, init=init, key=next(keys))
        self.down = Projection(hidden_dim, dim, bias=bias, init=init, key=next(keys))
        self.activation = Activation(activation)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*leading dim"]:
        return self.dropout(self.down(self.activation(self.up(x))), key=key, inference=inference)


class GLU(eqx.Module):
    """A gated MLP: `down(up(x) * activation(gate(x)))` (Shazeer 2020, arXiv:2002.05202).

    The activation names the variant: "swish" is SwiGLU, "gelu" GEGLU, "relu" ReGLU, "identity" the bilinear one, and
        "sigmoid" the original
    gated linear unit (Dauphin et al. 2016, arXiv:1612.08083).

    `up` and `gate` are one projection, in which the two rows of each hidden unit are neighbours, `up` before `gate`: so
        a split of it by its
    outputs is one by whole hidden units, as tensor parallelism makes it.

    Args:
        dim: size of the last axis, kept.
        hidden_dim: size of the gated vector. By default LLaMA's: 8/3 dim, which has as many parameters as an `MLP` of 4
            dim, rounded up to a multiple of 256. Name it in a narrow model, where that rounding is coarse.
        activation: of the gate; a name in `eqxgen.nn.activation.ACTIVATIONS`.
        dropout: rate after the last projection.
        bias: whether the projections have biases; neither paper's transformer has.
        init: how the weights are drawn.
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
        _check.positive(hidden_dim=hidden_dim)
        keys = RNG(key)
        self.up = Projection(dim, 2 * hidden_dim, bias=bias, init=init, key=next(keys))
        self.down = Projection(hidden_dim, dim, bias=bias, init=init, key=next(keys))
        self.activation = Activation(activation)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*leading dim"]:
        both = rearrange(self.up(x), "... (hidden parts) -> ... hidden parts", parts=2)
        value, gate = (part[..., 0] for part in jnp.split(both, 2, axis=-1))
        hidden = value * self.activation(gate)
        return self.dropout(self.down(hidden), key=key, inference=inference)
