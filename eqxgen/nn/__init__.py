"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.blocks import Stack, TransformerBlock
from eqxgen.nn.conv import Convolution, ResidualBlock, average_pool, blur, upsample
from eqxgen.nn.linear import Dropout, Embedding, Projection
from eqxgen.nn.low_rank import LoRA, lora, merge_lora, not_lora
from eqxgen.nn.magnitude import MagnitudePreserving, force_weight_norm, mp_cat, mp_silu, mp_sum
from eqxgen.nn.mlp import GLU, MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.quantize import (
    FSQ,
    LFQ,
    CosineQuantizer,
    EMAQuantizer,
    FactorisedQuantizer,
    GumbelQuantizer,
    Quantized,
    ResidualVQ,
    VectorQuantizer,
)
from eqxgen.nn.reparam import SpectralNorm, WeightNorm

__all__ = [
    "ACTIVATIONS",
    "FSQ",
    "GLU",
    "LFQ",
    "MLP",
    "Activation",
    "Convolution",
    "CosineQuantizer",
    "Dropout",
    "EMAQuantizer",
    "Embedding",
    "FactorisedQuantizer",
    "GroupNorm",
    "GumbelQuantizer",
    "LayerNorm",
    "LoRA",
    "MagnitudePreserving",
    "Projection",
    "Quantized",
    "ResidualBlock",
    "ResidualVQ",
    "SelfAttention",
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
