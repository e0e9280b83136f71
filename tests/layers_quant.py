"""The table's rows of gated MLPs, low-rank adaptation, reparametrised layers and quantisers."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.layer_rows import Row, Wrong

KEY = jr.key(0)


def projection(key=KEY):
    return nn.Projection(5, 3, key=key)


LAYERS = {
    "GLU": Row(lambda key: nn.GLU(5, 6, dropout=0.1, key=key), (7, 5), ((7, 5),), draws=True),
    "GLU, gelu, with bias": Row(lambda key: nn.GLU(5, 6, activation="gelu", bias=True, key=key), (7, 5), ((7, 5),)),
    "LoRA": Row(lambda key: nn.LoRA(projection(key), 2, alpha=4.0, key=key), (7, 3), ((7, 5),)),
}

WRONG = [
    Wrong(lambda: nn.GLU(0, key=KEY), "dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.GLU(4, 0, key=KEY), "hidden_dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.GLU(4, 8, activation="swiglu", key=KEY), "name must be one of .*swish.*: got 'swiglu'"),
    Wrong(lambda: nn.GLU(4, 8, key=KEY)(jnp.ones((3, 5))), r"the last axis of x must have in_dim=4 entries: got shape \(3, 5\)"),
    Wrong(lambda: nn.Activation("glu"), "got 'glu'; nearest: gelu"),
    Wrong(lambda: nn.Activation("GELU"), "name must be one of agelu, .*tanh: got 'GELU'"),
    Wrong(lambda: nn.LoRA(projection(), 0, key=KEY), "rank must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.LoRA(projection(), 4, key=KEY), "rank must be at most the weight's smaller side, 3: got 4"),
    Wrong(lambda: nn.LoRA(projection(), 2, key=KEY)(jnp.ones(4)), r"in_dim=5 entries: got shape \(4,\)"),
    Wrong(lambda: nn.lora(nn.LayerNorm(4), 2, key=KEY), "lora needs a Projection for which `where` holds"),
    Wrong(lambda: nn.lora(nn.MLP(4, key=KEY), 2, where=lambda path, _: path == "gate", key=KEY), "lora needs a Projection"),
]
