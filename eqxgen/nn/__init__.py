"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.blocks import Stack, TransformerBlock
from eqxgen.nn.conv import Convolution, ResidualBlock, average_pool, blur, upsample
from eqxgen.nn.linear import Dropout, Embedding, Projection
from eqxgen.nn.lora import LoRA, lora, merge_lora, not_lora
from eqxgen.nn.mlp import GLU, MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.quantize import VectorQuantizer

__all__ = [
    "ACTIVATIONS",
    "GLU",
    "MLP",
    "Activation",
    "Convolution",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "LayerNorm",
    "LoRA",
    "Projection",
    "ResidualBlock",
    "SelfAttention",
    "Stack",
    "TransformerBlock",
    "VectorQuantizer",
    "average_pool",
    "blur",
    "lora",
    "merge_lora",
    "not_lora",
    "upsample",
]
