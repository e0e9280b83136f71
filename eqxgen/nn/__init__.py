"""Layers for one example at a time: `jax.vmap` them over a batch."""

from eqxgen.nn._batch import synchronised
from eqxgen.nn.activation import ACTIVATIONS, Activation
from eqxgen.nn.attention.cache import KVCache
from eqxgen.nn.attention.cross import CrossAttention
from eqxgen.nn.attention.latent import LatentAttention
from eqxgen.nn.attention.linear_attention import LinearAttention
from eqxgen.nn.attention.multihead import MultiheadAttention
from eqxgen.nn.attention.parallel import ParallelAttention
from eqxgen.nn.attention.self_attention import SelfAttention
from eqxgen.nn.containers import EMA, Identity, Lambda, Residual, Sequential
from eqxgen.nn.conv.convolution import Convolution, Convolution1D, ConvolutionTranspose, ConvolutionTranspose1D
from eqxgen.nn.conv.focal import FocalModulation, SqueezeExcitation
from eqxgen.nn.conv.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool
from eqxgen.nn.conv.resample import (
    BlurPool,
    Downsample,
    PixelShuffle,
    PixelUnshuffle,
    Upsample,
    blur,
    downsample,
    upfirdn,
    upsample,
)
from eqxgen.nn.conv.residual import ResidualBlock
from eqxgen.nn.drop import Dropout, DropPath, TokenDrop
from eqxgen.nn.embed.fourier import FourierEmbedding, RandomFourier
from eqxgen.nn.embed.patch import ClassToken, PatchEmbed, Registers, Unpatch
from eqxgen.nn.embed.position import LearnedPositions
from eqxgen.nn.embed.relative import T5Bias, alibi
from eqxgen.nn.embed.rope import AxialRoPE, RoPE
from eqxgen.nn.embed.sinusoid import SinusoidalEmbedding, TimestepEmbedding, sincos_table
from eqxgen.nn.linear import Embedding, Projection
from eqxgen.nn.low_rank import LoRA, lora, merge_lora, not_lora
from eqxgen.nn.norm.actnorm import ActNorm
from eqxgen.nn.norm.batchnorm import BatchNorm, BatchNormState
from eqxgen.nn.norm.fused import GroupNorm, LayerNorm, RMSNorm
from eqxgen.nn.norm.magnitude import MagnitudePreserving, force_weight_norm, mp_cat, mp_silu, mp_sum
from eqxgen.nn.norm.reparam import SpectralNorm, WeightNorm
from eqxgen.nn.quantize.ema import EMAQuantizer
from eqxgen.nn.quantize.finite import FSQ
from eqxgen.nn.quantize.gumbel import GumbelQuantizer
from eqxgen.nn.quantize.lookup_free import LFQ
from eqxgen.nn.quantize.quantized import Quantized
from eqxgen.nn.quantize.residual import ResidualVQ
from eqxgen.nn.quantize.vector import VectorQuantizer
from eqxgen.nn.quantize.wrapped import CosineQuantizer, FactorisedQuantizer
from eqxgen.nn.recurrent import GRU, LSTM, LSTMState, VanillaRNN
from eqxgen.nn.transformer.blocks import Selformer, Timeformer, TransformerBlock
from eqxgen.nn.transformer.condition import AdaLN, AdaLNZero, FiLM
from eqxgen.nn.transformer.decoder import Crossformer, DecoderBlock
from eqxgen.nn.transformer.mlp import GLU, MLP
from eqxgen.nn.transformer.stack import LongSkipStack, Stack

__all__ = [
    "ACTIVATIONS",
    "EMA",
    "FSQ",
    "GLU",
    "GRU",
    "LFQ",
    "LSTM",
    "MLP",
    "ActNorm",
    "Activation",
    "AdaLN",
    "AdaLNZero",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "AxialRoPE",
    "BatchNorm",
    "BatchNormState",
    "BlurPool",
    "ClassToken",
    "Convolution",
    "Convolution1D",
    "ConvolutionTranspose",
    "ConvolutionTranspose1D",
    "CosineQuantizer",
    "CrossAttention",
    "Crossformer",
    "DecoderBlock",
    "Downsample",
    "DropPath",
    "Dropout",
    "EMAQuantizer",
    "Embedding",
    "FactorisedQuantizer",
    "FiLM",
    "FocalModulation",
    "FourierEmbedding",
    "GroupNorm",
    "GumbelQuantizer",
    "Identity",
    "KVCache",
    "LSTMState",
    "Lambda",
    "LatentAttention",
    "LayerNorm",
    "LearnedPositions",
    "LinearAttention",
    "LoRA",
    "LongSkipStack",
    "MagnitudePreserving",
    "MaxPool",
    "MultiheadAttention",
    "ParallelAttention",
    "PatchEmbed",
    "PixelShuffle",
    "PixelUnshuffle",
    "Projection",
    "Quantized",
    "RMSNorm",
    "RandomFourier",
    "Registers",
    "Residual",
    "ResidualBlock",
    "ResidualVQ",
    "RoPE",
    "SelfAttention",
    "Selformer",
    "Sequential",
    "SinusoidalEmbedding",
    "SpectralNorm",
    "SqueezeExcitation",
    "Stack",
    "T5Bias",
    "Timeformer",
    "TimestepEmbedding",
    "TokenDrop",
    "TransformerBlock",
    "Unpatch",
    "Upsample",
    "VanillaRNN",
    "VectorQuantizer",
    "WeightNorm",
    "alibi",
    "blur",
    "downsample",
    "force_weight_norm",
    "lora",
    "merge_lora",
    "mp_cat",
    "mp_silu",
    "mp_sum",
    "not_lora",
    "sincos_table",
    "synchronised",
    "upfirdn",
    "upsample",
]
