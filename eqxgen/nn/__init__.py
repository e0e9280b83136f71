"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.actnorm import ActNorm
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.batchnorm import BatchNorm, BatchNormState
from eqxgen.nn.blocks import Stack, TransformerBlock
from eqxgen.nn.conv import Convolution, Convolution1D, ConvolutionTranspose, ConvolutionTranspose1D
from eqxgen.nn.focal import FocalModulation, SqueezeExcitation
from eqxgen.nn.linear import Dropout, Embedding, Projection
from eqxgen.nn.mlp import MLP
from eqxgen.nn.norm import GroupNorm, LayerNorm, RMSNorm
from eqxgen.nn.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.recurrent import GRU, LSTM, LSTMState, VanillaRNN
from eqxgen.nn.resample import BlurPool, Downsample, PixelShuffle, PixelUnshuffle, Upsample, blur, downsample, upfirdn, upsample
from eqxgen.nn.residual import ResidualBlock

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "MLP",
    "ActNorm",
    "Activation",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "BatchNormState",
    "BlurPool",
    "Convolution",
    "Convolution1D",
    "ConvolutionTranspose",
    "ConvolutionTranspose1D",
    "Downsample",
    "Dropout",
    "Embedding",
    "FocalModulation",
    "GroupNorm",
    "LSTMState",
    "LayerNorm",
    "MaxPool",
    "PixelShuffle",
    "PixelUnshuffle",
    "Projection",
    "RMSNorm",
    "ResidualBlock",
    "SelfAttention",
    "SqueezeExcitation",
    "Stack",
    "TransformerBlock",
    "Upsample",
    "VanillaRNN",
    "VectorQuantizer",
    "blur",
    "downsample",
    "upfirdn",
    "upsample",
]
