"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.blocks import Stack, TransformerBlock
from eqxgen.nn.cache import KVCache
from eqxgen.nn.conv import Convolution, ResidualBlock, average_pool, blur, upsample
from eqxgen.nn.linear import Dropout, Embedding, Projection
from eqxgen.nn.mlp import MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.rope import AxialRoPE, RoPE

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "AxialRoPE",
    "Convolution",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "KVCache",
    "LayerNorm",
    "Projection",
    "ResidualBlock",
    "RoPE",
    "SelfAttention",
    "Stack",
    "TransformerBlock",
    "VectorQuantizer",
    "average_pool",
    "blur",
    "upsample",
]
