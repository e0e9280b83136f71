"""The feed-forward half of a transformer block."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

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
