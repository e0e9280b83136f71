"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.blocks import Selformer, Timeformer, TransformerBlock
from eqxgen.nn.condition import AdaLN, AdaLNZero, FiLM
from eqxgen.nn.conv import Convolution, ResidualBlock, average_pool, blur, upsample
from eqxgen.nn.decoder import DecoderBlock
from eqxgen.nn.drop import Dropout, DropPath, TokenDrop
from eqxgen.nn.glue import EMA, Identity, Lambda, Residual, Sequential
from eqxgen.nn.linear import Embedding, Projection
from eqxgen.nn.mlp import MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.patch import ClassToken, PatchEmbed, Registers, Unpatch
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.stack import LongSkipStack, Stack

__all__ = [
    "ACTIVATIONS",
    "EMA",
    "MLP",
    "Activation",
    "AdaLN",
    "AdaLNZero",
    "ClassToken",
    "Convolution",
    "DecoderBlock",
    "DropPath",
    "Dropout",
    "Embedding",
    "FiLM",
    "GroupNorm",
    "Identity",
    "Lambda",
    "LayerNorm",
    "LongSkipStack",
    "PatchEmbed",
    "Projection",
    "Registers",
    "Residual",
    "ResidualBlock",
    "SelfAttention",
    "Selformer",
    "Sequential",
    "Stack",
    "Timeformer",
    "TokenDrop",
    "TransformerBlock",
    "Unpatch",
    "VectorQuantizer",
    "average_pool",
    "blur",
    "upsample",
]
