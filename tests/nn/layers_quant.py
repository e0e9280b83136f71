"""The table's rows of gated MLPs, low-rank adaptation, reparametrised layers and quantisers."""

import math

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from eqxgen.nn.quantize import rotate
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)


def projection(key=KEY):
    return nn.Projection(5, 3, key=key)


def convolution(key=KEY):
    return nn.Convolution(3, 4, key=key)


def codebook(key=KEY, codes=7, dim=3, **options):
    return nn.VectorQuantizer(codes, dim, key=key, **options)


def residual(key=KEY, count=4, **options):
    return nn.ResidualVQ([codebook(part) for part in jr.split(key, count)], **options)


def multiscale(key=KEY, scales=(1, 2, 4)):
    return nn.MultiScaleVQ(codebook(key), scales, key=key)


LAYERS = {
    "GLU": Row(lambda key: nn.GLU(5, 6, dropout=0.1, key=key), (7, 5), ((7, 5),), draws=True),
    "GLU, gelu, with bias": Row(lambda key: nn.GLU(5, 6, activation="gelu", bias=True, key=key), (7, 5), ((7, 5),)),
    "WeightNorm": Row(lambda key: nn.WeightNorm(projection(key)), (7, 3), ((7, 5),)),
    "WeightNorm of a convolution": Row(lambda key: nn.WeightNorm(convolution(key)), (4, 5, 4), ((4, 5, 3),)),
    "SpectralNorm": Row(lambda key: nn.SpectralNorm(projection(key)), (7, 3), ((7, 5),), stateful=True),
    "SpectralNorm of a convolution": Row(
        lambda key: nn.SpectralNorm(convolution(key)), (4, 5, 4), ((4, 5, 3),), stateful=True
    ),
    "MagnitudePreserving": Row(
        lambda key: nn.MagnitudePreserving(nn.Projection(5, 3, bias=False, key=key), gain=0.5), (7, 3), ((7, 5),)
    ),
    "MagnitudePreserving convolution": Row(
        lambda key: nn.MagnitudePreserving(nn.Convolution(3, 4, bias=False, key=key)), (4, 5, 4), ((4, 5, 3),)
    ),
    "VectorQuantizer": Row(codebook, (3, 3), ((3, 3),)),
    "VectorQuantizer, rotated": Row(lambda key: codebook(key, estimator=rotate), (3, 3), ((3, 3),)),
    "CosineQuantizer": Row(lambda key: nn.CosineQuantizer(codebook(key)), (7, 3), ((7, 3),)),
    "FactorisedQuantizer": Row(
        lambda key: nn.FactorisedQuantizer(nn.CosineQuantizer(codebook(key)), 5, key=key), (7, 5), ((7, 5),)
    ),
    "FactorisedQuantizer of an FSQ": Row(
        lambda key: nn.FactorisedQuantizer(nn.FSQ((5, 4)), 5, key=key), (7, 5), ((7, 5),), atol=0.5
    ),
    "EMAQuantizer": Row(lambda key: nn.EMAQuantizer(7, 3, key=key), (3, 3), ((3, 3),), stateful=True),
    "GumbelQuantizer": Row(lambda key: nn.GumbelQuantizer(7, 3, key=key), (7, 3), ((7, 3),), draws=True),
    "FSQ": Row(lambda key: nn.FSQ((5, 4, 3)), (7, 3), ((7, 3),), atol=0.5),
    "LFQ": Row(lambda key: nn.LFQ(3), (7, 3), ((7, 3),)),
    "ResidualVQ": Row(lambda key: residual(key), (7, 3), ((7, 3),)),
    "ResidualVQ with dropout": Row(lambda key: residual(key, 3, dropout=True), (7, 3), ((7, 3),), draws=True),
    "MultiScaleVQ": Row(multiscale, (4, 4, 3), ((4, 4, 3),)),
    "LoRA": Row(lambda key: nn.LoRA(projection(key), 2, alpha=4.0, key=key), (7, 3), ((7, 5),)),
}

WRONG = [
    Wrong(lambda: nn.GLU(0, key=KEY), "dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.GLU(4, 0, key=KEY), "hidden_dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.GLU(4, 8, activation="swiglu", key=KEY), "name must be one of .*swish.*: got 'swiglu'"),
    Wrong(
        lambda: nn.GLU(4, 8, key=KEY)(jnp.ones((3, 5))),
        r"the last axis of x must have in_dim=4 entries: got shape \(3, 5\)",
    ),
    Wrong(lambda: nn.Activation("glu"), "got 'glu'; nearest: gelu"),
    Wrong(lambda: nn.Activation("GELU"), "name must be one of agelu, .*tanh: got 'GELU'"),
    Wrong(lambda: nn.LoRA(projection(), 0, key=KEY), "rank must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.LoRA(projection(), 4, key=KEY), "rank must be at most the weight's smaller side, 3: got 4"),
    Wrong(lambda: nn.LoRA(projection(), 2, math.nan, key=KEY), "alpha must be positive and finite: got nan"),
    Wrong(lambda: nn.LoRA(projection(), 2, 0.0, key=KEY), "alpha must be positive and finite: got 0.0"),
    Wrong(lambda: nn.LoRA(projection(), 2, key=KEY)(jnp.ones(4)), r"in_dim=5 entries: got shape \(4,\)"),
    Wrong(lambda: nn.lora(nn.LayerNorm(4), 2, key=KEY), "model must have a Projection that `where` selects"),
    Wrong(
        lambda: nn.lora(nn.MLP(4, key=KEY), 2, where=lambda path, _: path == "gate", key=KEY), "must have a Projection"
    ),
    Wrong(lambda: nn.WeightNorm(nn.LayerNorm(4)), "layer must have a weight of at least two axes, .*: got LayerNorm"),
    Wrong(lambda: nn.SpectralNorm(nn.Dropout(0.1)), "layer must have a weight of at least two axes, .*: got Dropout"),
    Wrong(lambda: nn.SpectralNorm(projection(), iterations=0), "iterations must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.SpectralNorm(projection(), epsilon=-1.0), "epsilon must be positive and finite: got -1.0"),
    Wrong(lambda: nn.MagnitudePreserving(projection()), "layer must have no bias, .*: got Projection with one"),
    Wrong(lambda: nn.MagnitudePreserving(nn.LayerNorm(4)), "layer must have a weight of at least two axes"),
    Wrong(lambda: codebook(codes=0), "codes must be an integer of at least 1: got 0"),
    Wrong(lambda: codebook(temperature=0.0), "temperature must be positive and finite: got 0.0"),
    Wrong(lambda: codebook()(jnp.ones((2, 4))), r"the last axis of x must have dim=3 entries: got shape \(2, 4\)"),
    Wrong(lambda: codebook().nearest(jnp.ones((2, 4))), r"dim=3 entries: got shape \(2, 4\)"),
    Wrong(
        lambda: nn.CosineQuantizer(codebook()).lookup(jnp.asarray([7])),
        r"ids must be in \[0, codes=7\): got values from 7 to 7",
    ),
    Wrong(lambda: nn.FactorisedQuantizer(codebook(), 0, key=KEY), "in_dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.FactorisedQuantizer(codebook(), 5, key=KEY)(jnp.ones(3)), r"dim=5 entries: got shape \(3,\)"),
    Wrong(lambda: nn.EMAQuantizer(7, 3, decay=1.0, key=KEY), r"decay must be in \[0, 1\): got 1.0"),
    Wrong(lambda: nn.EMAQuantizer(7, 3, epsilon=0.0, key=KEY), "epsilon must be positive and finite: got 0.0"),
    Wrong(
        lambda: nn.GumbelQuantizer(7, 3, temperature=-1.0, key=KEY), "temperature must be positive and finite: got -1.0"
    ),
    Wrong(lambda: nn.GumbelQuantizer(7, 3, key=KEY)(jnp.ones(3)), "GumbelQuantizer needs key=... in training"),
    Wrong(lambda: nn.FSQ(()), r"levels must be one or more integers of at least 2: got \(\)"),
    Wrong(lambda: nn.FSQ((8, 1)), r"levels must be one or more integers of at least 2: got \(8, 1\)"),
    Wrong(lambda: nn.FSQ((65536, 65536)), r"less than 2\*\*31 codes: got \(65536, 65536\)"),
    Wrong(lambda: nn.FSQ((5, 3))(jnp.ones(3)), r"dim=2 entries: got shape \(3,\)"),
    Wrong(
        lambda: nn.FSQ((5, 3)).lookup(jnp.asarray([15])), r"ids must be in \[0, codes=15\): got values from 15 to 15"
    ),
    Wrong(lambda: nn.LFQ(31), "bits must be at most 30, which an int32 holds: got 31"),
    Wrong(lambda: nn.LFQ(3)(jnp.ones(4)), r"dim=3 entries: got shape \(4,\)"),
    Wrong(lambda: nn.LFQ(3).lookup(jnp.asarray([-1])), r"ids must be in \[0, codes=8\): got values from -1 to -1"),
    Wrong(lambda: nn.ResidualVQ([]), r"quantizers must be one or more of equal codes and dim: got \[\]"),
    Wrong(
        lambda: nn.ResidualVQ([codebook(), codebook(codes=8)]), r"of equal codes and dim: got \[\(7, 3\), \(8, 3\)\]"
    ),
    Wrong(lambda: residual(dropout=True)(jnp.ones(3)), "ResidualVQ with dropout needs key"),
    Wrong(lambda: multiscale(scales=(1, 2, 2)), r"scales must be integers .* that increase: got \(1, 2, 2\)"),
    Wrong(lambda: multiscale()(jnp.ones((4, 3, 3))), r"z must have shape .* = \(4, 4, 3\), .*: got \(4, 3, 3\)"),
    Wrong(lambda: residual().lookup(jnp.zeros((2, 5), int)), r"at most quantizers=4 entries: got shape \(2, 5\)"),
]
