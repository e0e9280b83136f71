"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.actnorm import ActNorm
from eqxgen.nn.attention import SelfAttention
from eqxgen.nn.batchnorm import BatchNorm, BatchNormState
from eqxgen.nn.blocks import Stack, TransformerBlock
from eqxgen.nn.cache import KVCache
from eqxgen.nn.conv import Convolution, Convolution1D, ConvolutionTranspose, ConvolutionTranspose1D
from eqxgen.nn.cross import CrossAttention
from eqxgen.nn.focal import FocalModulation, SqueezeExcitation
from eqxgen.nn.fourier import FourierEmbedding, RandomFourier
from eqxgen.nn.latent import LatentAttention
from eqxgen.nn.linear import Dropout, Embedding, Projection
from eqxgen.nn.linear_attention import LinearAttention
from eqxgen.nn.mlp import MLP
from eqxgen.nn.multihead import MultiheadAttention
from eqxgen.nn.norm import GroupNorm, LayerNorm, RMSNorm
from eqxgen.nn.parallel_attention import ParallelAttention
from eqxgen.nn.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool
from eqxgen.nn.position import LearnedPositions
from eqxgen.nn.quantize import VectorQuantizer
from eqxgen.nn.recurrent import GRU, LSTM, LSTMState, VanillaRNN
from eqxgen.nn.relative import T5Bias, alibi
from eqxgen.nn.resample import BlurPool, Downsample, PixelShuffle, PixelUnshuffle, Upsample, blur, downsample, upfirdn, upsample
from eqxgen.nn.residual import ResidualBlock
from eqxgen.nn.rope import AxialRoPE, RoPE
from eqxgen.nn.sinusoid import SinusoidalEmbedding, TimestepEmbedding, sincos_table

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
    "AxialRoPE",
    "BatchNorm",
    "BatchNormState",
    "BlurPool",
    "Convolution",
    "Convolution1D",
    "ConvolutionTranspose",
    "ConvolutionTranspose1D",
    "CrossAttention",
    "Downsample",
    "Dropout",
    "Embedding",
    "FocalModulation",
    "FourierEmbedding",
    "GroupNorm",
    "KVCache",
    "LSTMState",
    "LatentAttention",
    "LayerNorm",
    "LearnedPositions",
    "LinearAttention",
    "MaxPool",
    "MultiheadAttention",
    "ParallelAttention",
    "PixelShuffle",
    "PixelUnshuffle",
    "Projection",
    "RMSNorm",
    "RandomFourier",
    "ResidualBlock",
    "RoPE",
    "SelfAttention",
    "SinusoidalEmbedding",
    "SqueezeExcitation",
    "Stack",
    "T5Bias",
    "TimestepEmbedding",
    "TransformerBlock",
    "Upsample",
    "VanillaRNN",
    "VectorQuantizer",
    "alibi",
    "blur",
    "downsample",
    "sincos_table",
    "upfirdn",
    "upsample",
]
