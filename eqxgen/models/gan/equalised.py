"""Layers with equalised learning rates (Karras et al. 2018, arXiv:1710.10196, section 4.1; StyleGAN2,
arXiv:1912.04958): weights are normal with deviation 1 / rate, and scaled by rate / sqrt(fan-in) at each call, so that
Adam moves all of them alike.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.conv.convolution import _by_phases, convolve
from eqxgen.nn.conv.resample import Taps, upfirdn
from eqxgen.nn.linear import take_rows, times_rows

TAPS = (1, 3, 3, 1)
"""Filter of StyleGAN2's resampling."""


def activated(
    x: Float[Array, "*leading channels"],
    bias: Float[Array, " channels"] | None,
    *,
    linear: bool = False,
    gain: float = 1.0,
    clamp: float = 0.0,
) -> Float[Array, "*leading channels"]:
    """gain · sqrt(2) · leaky_relu(x + bias), or gain · (x + bias) if `linear`, within ± gain · clamp; 0: unbounded."""
    x = x if bias is None else x + bias.astype(x.dtype)[(None,) * (x.ndim - 1)]
    x = gain * x if linear else gain * math.sqrt(2) * jax.nn.leaky_relu(x, 0.2)
    return jnp.clip(x, -gain * clamp, gain * clamp) if clamp else x


class EqualisedProjection(eqx.Module):
    """A linear map of the last axis, then `activated`.

    Args:
        in_dim, out_dim: sizes of the last axis.
        linear: leaves out the activation.
        rate: multiplier of the learning rate.
        start: initial value of the bias.
    """

    weight: Float[Array, "out_dim in_dim"]
    bias: Float[Array, " out_dim"]
    linear: bool = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        linear: bool = False,
        rate: float = 1.0,
        start: float = 0.0,
        key: PRNGKeyArray,
    ):
        _check.positive(in_dim=in_dim, out_dim=out_dim)
        self.weight = jr.normal(key, (out_dim, in_dim)) / rate
        self.bias = jnp.full(out_dim, start, jnp.float32)
        self.linear, self.rate = linear, rate

    def __call__(
        self, x: Float[Array, "*leading in_dim"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading out_dim"]:
        y = times_rows(x, self.weight) * (self.rate / math.sqrt(self.weight.shape[1]))
        return activated(y, self.rate * self.bias, linear=self.linear)


class EqualisedEmbedding(eqx.Module):
    """`EqualisedProjection` of a one-hot class, linear."""

    weight: Float[Array, "classes dim"]
    bias: Float[Array, " dim"]

    def __init__(self, classes: int, dim: int, *, key: PRNGKeyArray):
        _check.positive(classes=classes, dim=dim)
        self.weight, self.bias = jr.normal(key, (classes, dim)), jnp.zeros(dim)

    def __call__(self, label: Int[Array, ""]) -> Float[Array, " dim"]:
        row = take_rows(self.weight, _check.ids(label, len(self.weight), "label", "classes"))
        return row / math.sqrt(len(self.weight)) + self.bias


class EqualisedConvolution(eqx.Module):
    """A convolution that keeps, doubles or halves an image with a filter, then `activated`.

    Args:
        in_channels, out_channels: sizes of the last axis.
        kernel: side of the kernel; 1 or 3.
        resample: None, "up" or "down".
        linear: leaves out the activation.
        bias: adds a bias, zero at first.
        taps: of the filter.
    """

    weight: Float[Array, "kernel kernel in_channels out_channels"]
    bias: Float[Array, " out_channels"] | None
    resample: str | None = eqx.field(static=True)
    linear: bool = eqx.field(static=True)
    taps: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        resample: str | None = None,
        linear: bool = False,
        bias: bool = True,
        taps: Taps = TAPS,
        key: PRNGKeyArray,
    ):
        _check.positive(in_channels=in_channels, out_channels=out_channels, kernel=kernel)
        self.weight = jr.normal(key, (kernel, kernel, in_channels, out_channels))
        self.bias = jnp.zeros(out_channels) if bias else None
        self.resample, self.linear, self.taps = resample, linear, tuple(float(tap) for tap in taps)

    def __call__(
        self,
        x: Float[Array, "height width in_channels"],
        *,
        gain: float = 1.0,
        clamp: float = 0.0,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "out_height out_width out_channels"]:
        scale = 1 / math.sqrt(math.prod(self.weight.shape[:3]))
        y = resampling(x, self.weight * scale, self.resample, self.taps)
        return activated(y, self.bias, linear=self.linear, gain=gain, clamp=clamp)


def resampling(
    x: Float[Array, "height width in_channels"],
    weight: Float[Array, "kernel kernel in_channels out_channels"],
    direction: str | None,
    taps: Taps = TAPS,
) -> Float[Array, "out_height out_width out_channels"]:
    """A convolution with a filter before or after it, as StyleGAN2's: no border is filled with zeros between the two.

    down: filter, then a convolution with stride 2. up: a transposed convolution with stride 2, then the filter. With a
    1x1 kernel the filter resamples.
    """
    kernel, weight = weight.shape[0], weight.astype(x.dtype)
    border, count = kernel // 2, len(taps)
    scaled = [tap / sum(taps) for tap in taps]
    if direction is None:
        return convolve(x, weight, padding=(border, border))
    if direction == "down":
        pads = (border + (count - 1) // 2, border + (count - 2) // 2)
        if kernel == 1:
            return convolve(upfirdn(x, scaled, down=2, padding=pads), weight)
        return convolve(upfirdn(x, scaled, padding=pads), weight, stride=2)
    if kernel == 1:
        return upfirdn(convolve(x, weight), scaled, up=2, padding=((count + 1) // 2, (count - 2) // 2), gain=4.0)
    y = _by_phases(x, weight, stride=2, groups=1)  # 2 * side + 2, of which the last is zero
    before = (count + 1) // 2 - border
    short = 2 * x.shape[0] + count - 1 - before - y.shape[0]
    return upfirdn(y, scaled, padding=(before, short), gain=4.0)
