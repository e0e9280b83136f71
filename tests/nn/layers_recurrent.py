"""The table's recurrent layers."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)

LAYERS = {
    "VanillaRNN": Row(lambda key: nn.VanillaRNN(3, 5, key=key), (6, 5), ((6, 3),), stateful=True),
    "GRU": Row(lambda key: nn.GRU(3, 5, key=key), (6, 5), ((6, 3),), stateful=True),
    "LSTM": Row(lambda key: nn.LSTM(3, 5, key=key), (6, 5), ((6, 3),), stateful=True),
    "LSTM without bias": Row(lambda key: nn.LSTM(3, 5, bias=False, key=key), (6, 5), ((6, 3),), stateful=True),
    "Mamba2": Row(
        lambda key: nn.Mamba2(6, state_dim=5, head_dim=4, chunk=4, key=key), (7, 6), ((7, 6),), stateful=True
    ),
}

WRONG = [
    Wrong(lambda: nn.Mamba2(6, head_dim=5, key=KEY), r"head_dim must divide expand \* dim: got 2 \* 6, head_dim=5"),
    Wrong(lambda: nn.Mamba2(6, head_dim=4, groups=2, key=KEY), "groups must divide heads: got heads=3, groups=2"),
    Wrong(lambda: nn.Mamba2(6, head_dim=4, chunk=0, key=KEY), "chunk must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.Mamba2(6, head_dim=4, key=KEY)(jnp.ones((7, 5))), r"x must be \(seq, dim=6\): got shape \(7, 5\)"),
    Wrong(
        lambda: nn.Mamba2(6, head_dim=4, key=KEY)(jnp.ones((7, 6)), nn.Mamba2(8, head_dim=4, key=KEY).init_state()),
        r"state must be as init_state\(\) gives it, with shapes .*: got",
    ),
    Wrong(lambda: nn.VanillaRNN(3, 0, key=KEY), "dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.GRU(0, 3, key=KEY), "in_dim must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.GRU(3, 5, key=KEY)(jnp.ones((6, 4))),
        r"x must be \(seq, in_dim=3\): got shape \(6, 4\)",
    ),
    Wrong(
        lambda: nn.LSTM(3, 5, key=KEY)(jnp.ones((2, 6, 3))),
        r"x must be \(seq, in_dim=3\): got shape \(2, 6, 3\); jax.vmap the layer over a batch",
    ),
    Wrong(
        lambda: nn.LSTM(3, 5, key=KEY).step(jnp.ones((6, 3))),
        r"x must be \(in_dim=3,\): got shape \(6, 3\)",
    ),
    Wrong(
        lambda: nn.GRU(3, 5, key=KEY)(jnp.ones((6, 3)), jnp.ones(4)),
        r"state must be as init_state\(\) gives it, with shapes \(dim,\) = \(5,\): got \(4,\)",
    ),
    Wrong(
        lambda: nn.LSTM(3, 5, key=KEY)(jnp.ones((6, 3)), jnp.ones(5)),
        r"state must be as init_state\(\) gives it, .* got \(5,\)",
    ),
]
