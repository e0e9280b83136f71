"""The table's convolutions, pools and resampling."""

import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)

LAYERS = {
    "Convolution, wide": Row(lambda key: nn.Convolution(16, 32, key=key), (5, 7, 32), ((5, 7, 16),)),
    "Convolution, circular, dilated": Row(
        lambda key: nn.Convolution(4, 6, padding_mode="circular", dilation=2, groups=2, key=key),
        (5, 7, 6),
        ((5, 7, 4),),
    ),
    "Convolution, reflect": Row(
        lambda key: nn.Convolution(4, 6, kernel=2, padding=1, padding_mode="reflect", key=key), (6, 8, 6), ((5, 7, 4),)
    ),
    "Convolution1D": Row(lambda key: nn.Convolution1D(4, 6, key=key), (7, 6), ((7, 4),)),
    "Convolution1D, circular, without bias": Row(
        lambda key: nn.Convolution1D(4, 4, kernel=5, padding_mode="circular", groups=4, bias=False, key=key),
        (7, 4),
        ((7, 4),),
    ),
    "ConvolutionTranspose": Row(
        lambda key: nn.ConvolutionTranspose(4, 6, kernel=4, stride=2, key=key), (6, 8, 6), ((3, 4, 4),)
    ),
    "ConvolutionTranspose, grouped, more at the end": Row(
        lambda key: nn.ConvolutionTranspose(4, 6, stride=2, output_padding=1, groups=2, bias=False, key=key),
        (6, 8, 6),
        ((3, 4, 4),),
    ),
    "ConvolutionTranspose1D": Row(
        lambda key: nn.ConvolutionTranspose1D(4, 6, kernel=4, stride=2, key=key), (10, 6), ((5, 4),)
    ),
    "MaxPool": Row(lambda key: nn.MaxPool(window=2, key=key), (2, 3, 4), ((5, 7, 4),)),
    "MaxPool, overlapping": Row(lambda key: nn.MaxPool(3, stride=2, padding=1), (3, 4, 4), ((5, 7, 4),)),
    "MaxPool of a sequence": Row(lambda key: nn.MaxPool(3, stride=1), (5, 4), ((7, 4),)),
    "AvgPool": Row(lambda key: nn.AvgPool(2), (2, 3, 4), ((5, 7, 4),)),
    "AvgPool, overlapping": Row(lambda key: nn.AvgPool(3, stride=2, padding=1), (3, 4, 4), ((5, 7, 4),)),
    "AdaptiveAvgPool": Row(lambda key: nn.AdaptiveAvgPool((2, 3)), (2, 3, 4), ((5, 7, 4),)),
    "AdaptiveMaxPool": Row(lambda key: nn.AdaptiveMaxPool(3), (3, 3, 4), ((5, 7, 4),)),
    "Upsample": Row(lambda key: nn.Upsample(3), (6, 9, 4), ((2, 3, 4),)),
    "Upsample, bilinear": Row(lambda key: nn.Upsample(method="bilinear"), (4, 6, 4), ((2, 3, 4),)),
    "Downsample": Row(lambda key: nn.Downsample(), (2, 3, 4), ((4, 6, 4),)),
    "BlurPool": Row(lambda key: nn.BlurPool(), (2, 3, 4), ((4, 6, 4),)),
    "BlurPool, three taps": Row(lambda key: nn.BlurPool((1, 2, 1), stride=1), (4, 6, 4), ((4, 6, 4),)),
    "PixelShuffle": Row(lambda key: nn.PixelShuffle(), (4, 6, 2), ((2, 3, 8),)),
    "PixelUnshuffle": Row(lambda key: nn.PixelUnshuffle(), (2, 3, 8), ((4, 6, 2),)),
}

WRONG = [
    Wrong(lambda: nn.Convolution(3, 4, dilation=0, key=KEY), "dilation must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.Convolution(3, 4, padding_mode="mirror", key=KEY),
        "padding_mode must be one of circular, reflect, zeros: got 'mirror'",
    ),
    Wrong(
        lambda: nn.Convolution(3, 4, kernel=3, dilation=2, padding=0, key=KEY)(jnp.ones((4, 9, 3))),
        r"padding be at least as long as the dilated kernel=3: got shape \(4, 9, 3\), padding=0, dilation=2",
    ),
    Wrong(
        lambda: nn.Convolution(3, 4, padding=4, padding_mode="reflect", key=KEY)(jnp.ones((4, 9, 3))),
        r"padding must be at most 3 with padding_mode='reflect': got 4 for \(4, 9, 3\)",
    ),
    Wrong(
        lambda: nn.Convolution1D(3, 4, padding=5, padding_mode="circular", key=KEY)(jnp.ones((4, 3))),
        r"padding must be at most 4 with padding_mode='circular': got 5 for \(4, 3\)",
    ),
    Wrong(
        lambda: nn.Convolution(3, 4, key=KEY)(jnp.ones((2, 5, 5, 3))),
        r"x must be \(height, width, in_channels=3\): got shape \(2, 5, 5, 3\); jax.vmap the layer over a batch",
    ),
    Wrong(
        lambda: nn.Convolution1D(3, 4, key=KEY)(jnp.ones((5, 5, 3))),
        r"x must be \(seq, in_channels=3\): got shape \(5, 5, 3\)",
    ),
    Wrong(
        lambda: nn.Convolution1D(3, 4, key=KEY)(jnp.ones((3, 5))),
        r"x must be \(seq, in_channels=3\): got shape \(3, 5\)",
    ),
    Wrong(
        lambda: nn.ConvolutionTranspose(3, 4, groups=3, key=KEY),
        "groups must divide out_channels: got out_channels=4, groups=3",
    ),
    Wrong(
        lambda: nn.ConvolutionTranspose(3, 4, stride=2, output_padding=2, key=KEY),
        r"output_padding must be in \[0, the larger of stride and dilation\): got 2, stride=2, dilation=1",
    ),
    Wrong(
        lambda: nn.ConvolutionTranspose(3, 4, padding=5, key=KEY)(jnp.ones((4, 9, 3))),
        r"padding=5 must leave at least 1 entry of every axis: got shape \(4, 9, 3\), which leaves -4",
    ),
    Wrong(
        lambda: nn.Convolution(3, 4, padding="same", key=KEY), "padding must be an integer of at least 0: got 'same'"
    ),
    Wrong(lambda: nn.AvgPool(3, padding="valid"), "padding must be an integer of at least 0: got 'valid'"),
    Wrong(lambda: nn.Convolution(3, 4, kernel=(3, 3), key=KEY), r"kernel must be an integer .*: got \(3, 3\)"),
    Wrong(lambda: nn.MaxPool(0), "window must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.MaxPool(2, stride=0), "stride must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.MaxPool(3, padding=2), "padding must be at most half the window: got padding=2, window=3"),
    Wrong(lambda: nn.AvgPool(3, padding=-1), "padding must be an integer of at least 0: got -1"),
    Wrong(lambda: nn.AvgPool(3)(jnp.ones((2, 5, 1))), r"padding be at least window=3 long: got \(2, 5, 1\), padding=0"),
    Wrong(lambda: nn.MaxPool(3)(jnp.ones(5)), r"x must have spatial axes and one of channels: got shape \(5,\)"),
    Wrong(lambda: nn.AdaptiveAvgPool((2, 0)), "size must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.AdaptiveMaxPool((2, 2))(jnp.ones((5, 3))),
        r"size must have one number for each spatial axis of x: got size=\(2, 2\), shape \(5, 3\)",
    ),
    Wrong(lambda: nn.Upsample(0), "factor must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.Upsample(2, "cubic"), "method must be one of bilinear, nearest: got 'cubic'"),
    Wrong(lambda: nn.Upsample()(jnp.ones((5, 3))), r"x must be \(height, width, channels\): got shape \(5, 3\)"),
    Wrong(lambda: nn.Downsample()(jnp.ones((4, 5, 3))), "factor must divide width: got width=5, factor=2"),
    Wrong(lambda: nn.BlurPool((1, -1)), r"taps must have a sum other than 0: got \(1, -1\)"),
    Wrong(lambda: nn.BlurPool(stride=0), "stride must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.upfirdn(jnp.ones((3, 3, 1)), (1, 1), up=0), "up must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.upfirdn(jnp.ones((3, 3, 1)), (1, 1), padding=(-2, 0)),
        r"taps must be at least 1 and at most as many as an axis has entries .* "
        r"got 2 taps, up=1, padding=\(-2, 0\), shape \(3, 3, 1\)",
    ),
    Wrong(
        lambda: nn.PixelShuffle()(jnp.ones((4, 4, 6))),
        r"the square of factor=2 must divide channels: got shape \(4, 4, 6\)",
    ),
    Wrong(lambda: nn.PixelUnshuffle(3)(jnp.ones((4, 3, 1))), "factor must divide height: got height=4, factor=3"),
]
