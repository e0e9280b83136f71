"""The table's rows of gated MLPs, low-rank adaptation, reparametrised layers and quantisers."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.layer_rows import Row, Wrong

KEY = jr.key(0)


def projection(key=KEY):
    return nn.Projection(5, 3, key=key)


def convolution(key=KEY):
    return nn.Convolution(3, 4, key=key)


LAYERS = {
    "GLU": Row(lambda key: nn.GLU(5, 6, dropout=0.1, key=key), (7, 5), ((7, 5),), draws=True),
    "GLU, gelu, with bias": Row(lambda key: nn.GLU(5, 6, activation="gelu", bias=True, key=key), (7, 5), ((7, 5),)),
    "WeightNorm": Row(lambda key: nn.WeightNorm(projection(key)), (7, 3), ((7, 5),)),
    "WeightNorm of a convolution": Row(lambda key: nn.WeightNorm(convolution(key)), (4, 5, 4), ((4, 5, 3),)),
    "SpectralNorm": Row(lambda key: nn.SpectralNorm(projection(key)), (7, 3), ((7, 5),), stateful=True),
    "SpectralNorm of a convolution": Row(lambda key: nn.SpectralNorm(convolution(key)), (4, 5, 4), ((4, 5, 3),), stateful=True),
    "MagnitudePreserving": Row(lambda key: nn.MagnitudePreserving(nn.Projection(5, 3, bias=False, key=key), gain=0.5), (7, 3), ((7, 5),)),
    "MagnitudePreserving convolution": Row(
        lambda key: nn.MagnitudePreserving(nn.Convolution(3, 4, bias=False, key=key)), (4, 5, 4), ((4, 5, 3),)
    ),
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
    Wrong(lambda: nn.WeightNorm(nn.LayerNorm(4)), "layer must have a weight of at least two axes, .*: got LayerNorm"),
    Wrong(lambda: nn.SpectralNorm(nn.Dropout(0.1)), "layer must have a weight of at least two axes, .*: got Dropout"),
    Wrong(lambda: nn.SpectralNorm(projection(), iterations=0), "iterations must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.SpectralNorm(projection(), epsilon=-1.0), "epsilon must be positive and finite: got -1.0"),
    Wrong(lambda: nn.MagnitudePreserving(projection()), "layer must have no bias, .*: got Projection with one"),
    Wrong(lambda: nn.MagnitudePreserving(nn.LayerNorm(4)), "layer must have a weight of at least two axes"),
]
