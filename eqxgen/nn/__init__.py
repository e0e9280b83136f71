"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.blocks import Stack, TransformerBlock
from eqxgen.nn.cache import KVCache
from eqxgen.nn.conv import Convolution, Convolution1D, ConvolutionTranspose, ConvolutionTranspose1D
from eqxgen.nn.linear import Dropout, Embedding, Projection
from eqxgen.nn.mlp import MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm
from eqxgen.nn.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.resample import BlurPool, Downsample, PixelShuffle, PixelUnshuffle, Upsample, blur, downsample, upfirdn, upsample
from eqxgen.nn.residual import ResidualBlock
from eqxgen.nn.rope import AxialRoPE, RoPE

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "AxialRoPE",
    "BlurPool",
    "Convolution",
    "Convolution1D",
    "ConvolutionTranspose",
    "ConvolutionTranspose1D",
    "Downsample",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "KVCache",
    "LayerNorm",
    "MaxPool",
    "PixelShuffle",
    "PixelUnshuffle",
    "Projection",
    "ResidualBlock",
    "RoPE",
    "SelfAttention",
    "Stack",
    "TransformerBlock",
    "Upsample",
    "VectorQuantizer",
    "blur",
    "downsample",
    "upfirdn",
    "upsample",
]
