"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.cache import KVCache
from eqxgen.nn.blocks import Selformer, TransformerBlock
from eqxgen.nn.conv import Convolution, ResidualBlock, average_pool, blur, upsample
from eqxgen.nn.drop import Dropout, DropPath
from eqxgen.nn.linear import Embedding, Projection
from eqxgen.nn.mlp import MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.rope import AxialRoPE, RoPE
from eqxgen.nn.stack import Stack

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "AxialRoPE",
    "Convolution",
    "DropPath",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "KVCache",
    "LayerNorm",
    "Projection",
    "ResidualBlock",
    "RoPE",
    "SelfAttention",
    "Selformer",
    "Stack",
    "TransformerBlock",
    "VectorQuantizer",
    "average_pool",
    "blur",
    "upsample",
]
