"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.blocks import Selformer, TransformerBlock
from eqxgen.nn.cache import KVCache
from eqxgen.nn.conv import Convolution, ResidualBlock, average_pool, blur, upsample
from eqxgen.nn.drop import Dropout, DropPath
from eqxgen.nn.linear import Embedding, Projection
from eqxgen.nn.lora import LoRA, lora, merge_lora, not_lora
from eqxgen.nn.magnitude import MagnitudePreserving, force_weight_norm, mp_cat, mp_silu, mp_sum
from eqxgen.nn.mlp import GLU, MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.reparam import SpectralNorm, WeightNorm
from eqxgen.nn.rope import AxialRoPE, RoPE
from eqxgen.nn.stack import Stack

__all__ = [
    "ACTIVATIONS",
    "GLU",
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
    "LoRA",
    "MagnitudePreserving",
    "Projection",
    "ResidualBlock",
    "RoPE",
    "SelfAttention",
    "Selformer",
    "SpectralNorm",
    "Stack",
    "TransformerBlock",
    "VectorQuantizer",
    "WeightNorm",
    "average_pool",
    "blur",
    "force_weight_norm",
    "lora",
    "merge_lora",
    "mp_cat",
    "mp_silu",
    "mp_sum",
    "not_lora",
    "upsample",
]
