"""Convolution and resampling, channels-last."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer
from eqxgen.nn.norm import GroupNorm

conv_uniform: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform in ±1/sqrt(fan_in) for kernels of shape (height, width, in, out): the default of torch and Equinox."""


class Convolution(eqx.Module):
    """2-D convolution of one image `(height, width, channels)`.

    Args:
        in_channels, out_channels: sizes of the last axis.
        kernel: side of the square kernel.
        stride: step between outputs.
        padding: zeros at each border; `(kernel - 1) // 2` by default, which keeps the size at stride 1 and odd `kernel`.
        groups: splits the channels into independent convolutions; it divides both channel counts.
        bias: whether a bias, zero at first, is added.
        init: a `jax.nn.initializers` function for the kernel `(kernel, kernel, in_channels // groups, out_channels)`.
    """

    weight: Float[Array, "kernel kernel in_group out_channels"]
    bias: Float[Array, " out_channels"] | None
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = True,
        init: Initializer = conv_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(in_channels=in_channels, out_channels=out_channels, kernel=kernel, stride=stride, groups=groups)
        _check.divides(groups=groups, in_channels=in_channels)
        _check.divides(groups=groups, out_channels=out_channels)
        if padding is not None and padding < 0:
            raise ValueError(f"padding must not be negative: got {padding}")
        self.weight = init(key, (kernel, kernel, in_channels // groups, out_channels), jnp.float32)
        self.bias = jnp.zeros(out_channels) if bias else None
        self.stride, self.groups = stride, groups
        self.padding = (kernel - 1) // 2 if padding is None else padding

    def __call__(
        self, x: Float[Array, "height width in_channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "out_height out_width out_channels"]:
        kernel, channels = self.weight.shape[0], self.weight.shape[2] * self.groups
        if x.shape[-1] != channels:
            raise ValueError(f"the last axis of x must have in_channels={channels} entries: got shape {x.shape}")
        if min(x.shape[:2]) + 2 * self.padding < kernel:
            raise ValueError(f"the padded image must be at least kernel={kernel} wide and high: got {x.shape[:2]}, padding={self.padding}")
        y = jax.lax.conv_general_dilated(
            x[None],
            self.weight.astype(x.dtype),
            window_strides=(self.stride, self.stride),
            padding=((self.padding, self.padding),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )[0]
        return y if self.bias is None else y + self.bias.astype(y.dtype)[None, None]


def average_pool(x: Float[Array, "height width channels"], size: int = 2) -> Float[Array, "small_height small_width channels"]:
    """Mean over each `size` x `size` square. Raises `ValueError` where `size` does not divide the image."""
    _check.divides(size=size, height=x.shape[0])
    _check.divides(size=size, width=x.shape[1])
    return reduce(x, "(h i) (w j) c -> h w c", "mean", i=size, j=size)


def upsample(x: Float[Array, "height width channels"], size: int = 2) -> Float[Array, "large_height large_width channels"]:
    """Each pixel repeated `size` times along both axes (nearest neighbour)."""
    return repeat(x, "h w c -> (h i) (w j) c", i=size, j=size)


def blur(
    x: Float[Array, "height width channels"], taps: Sequence[float] = (1, 3, 3, 1), *, stride: int = 1
) -> Float[Array, "out_height out_width channels"]:
    """Separable low-pass filter, then every `stride`-th pixel (Zhang 2019, arXiv:1904.11486; StyleGAN2's resampling).

    `taps` are normalised to sum 1. With an even number of taps and stride 2 an even size is halved exactly.
    """
    kernel = jnp.asarray(taps, jnp.float32) / sum(taps)
    before, after = (len(taps) - 1) // 2, len(taps) // 2 - (len(taps) % 2 == 0 and stride > 1)
    for axis in (0, 1):
        rows = rearrange(jnp.moveaxis(x, axis, -1), "a c s -> (a c) s 1")
        rows = jax.lax.conv_general_dilated(
            rows, kernel.astype(x.dtype)[:, None, None], (stride,), ((before, after),), dimension_numbers=("NHC", "HIO", "NHC")
        )
        x = jnp.moveaxis(rearrange(rows, "(a c) s 1 -> a c s", c=x.shape[-1]), -1, axis)
    return x


class ResidualBlock(eqx.Module):
    """norm, swish, convolution, twice, added to the input, which a 1x1 convolution fits where the channels change.

    The block of the MaskGIT tokenizer: group norm with epsilon 1e-6, no bias in any convolution.

    Args:
        in_channels, out_channels: sizes of the last axis.
        groups: of both group norms; lowered to the channel count where that is smaller.
    """

    norms: tuple[GroupNorm, GroupNorm]
    convs: tuple[Convolution, Convolution]
    shortcut: Convolution | None

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 32, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.norms = (
            GroupNorm(in_channels, min(groups, in_channels), epsilon=1e-6),
            GroupNorm(out_channels, min(groups, out_channels), epsilon=1e-6),
        )
        self.convs = (
            Convolution(in_channels, out_channels, bias=False, key=keys[0]),
            Convolution(out_channels, out_channels, bias=False, key=keys[1]),
        )
        self.shortcut = None if in_channels == out_channels else Convolution(in_channels, out_channels, kernel=1, bias=False, key=keys[2])

    def __call__(
        self, x: Float[Array, "height width in_channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "height width out_channels"]:
        h = x
        for norm, conv in zip(self.norms, self.convs):
            h = conv(norm(h, activation="silu"))
        return h + (x if self.shortcut is None else self.shortcut(x))
