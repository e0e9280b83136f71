"""Resampling, channels-last: repetition, interpolation, averages, filters, pixel shuffle."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import repeat
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._mesh import in_steps
from eqxgen.nn.conv.pool import pool, shifted

Taps = Sequence[int | float]
METHODS = ("nearest", "bilinear")


def upsample(
    x: Float[Array, "height width channels"], factor: int = 2, method: str = "nearest"
) -> Float[Array, "large_height large_width channels"]:
    """An image `factor` times as high and wide, by repetition of pixels ("nearest") or by interpolation between pixel
    centres ("bilinear", torch's `align_corners=False`).
    """
    if method == "nearest":
        return repeat(repeat(x, "h w c -> (h i) w c", i=factor), "h w c -> h (w j) c", j=factor)
    height, width, channels = x.shape
    return jax.image.resize(x, (factor * height, factor * width, channels), "bilinear")


def downsample(
    x: Float[Array, "height width channels"], factor: int = 2
) -> Float[Array, "small_height small_width channels"]:
    """Mean over each `factor` x `factor` square. Raises `ValueError` if `factor` does not divide a side."""
    _check.divides(factor=factor, height=x.shape[0])
    _check.divides(factor=factor, width=x.shape[1])
    return pool(x, jnp.add, 0.0, factor, factor) / factor**2


def upfirdn(
    x: Float[Array, "*spatial channels"],
    taps: Taps,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Float[Array, "*out_spatial channels"]:
    """Upsample by zeros, pad, filter and downsample, along every spatial axis (Karras et al. 2020, arXiv:1912.04958,
    appendix B).

    Along an axis of n entries: each entry is followed by `up - 1` zeros; `padding` adds zeros before and after, and
    crops where it is negative; `y[i] = Σ_j taps[j] * padded[i + len(taps) - 1 - j]` is a convolution, with the taps in
    reverse order; every `down`-th entry is kept, `(up * n + sum(padding) - len(taps)) // down + 1` in all.

    Args:
        taps: of the filter, the same along every axis; not normalised here.
        gain: a factor of the result, once for all axes; `up ** axes` keeps the brightness of an upsampled image.

    Raises:
        ValueError: `up` or `down` is not a positive integer, there are no taps, or an axis with its padding is shorter
            than the filter.
    """
    _check.positive(up=up, down=down)
    _check.some_spatial(x)
    if len(taps) == 0 or up * min(x.shape[:-1]) + sum(padding) < len(taps):
        raise ValueError(
            f"taps must be at least 1 and at most as many as an axis has entries with its padding: got {len(taps)} "
            f"taps, up={up}, padding={padding}, shape {x.shape}"
        )
    before, after = padding
    spread = (before, after + up - 1, up - 1)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), (*(spread,) * (x.ndim - 1), (0, 0, 0)))
    for axis in range(x.ndim - 1):
        scaled = [float(tap) * (gain if axis == 0 else 1.0) for tap in reversed(taps)]
        x = functools.reduce(jnp.add, [tap * part for tap, part in zip(scaled, shifted(x, axis, len(taps), down))])
    return x


def blur(
    x: Float[Array, "*spatial channels"], taps: Taps = (1, 3, 3, 1), *, stride: int = 1
) -> Float[Array, "*out_spatial channels"]:
    """Separable low-pass filter, then every `stride`-th pixel (Zhang 2019, arXiv:1904.11486; StyleGAN2's resampling).

    `taps` are normalised to sum 1. An even number of taps and stride 2 halve an even size exactly.
    """
    before, after = (len(taps) - 1) // 2, len(taps) // 2 - (len(taps) % 2 == 0 and stride > 1)
    return upfirdn(x, [tap / sum(taps) for tap in taps], down=stride, padding=(before, after))


def enlarge(x: Float[Array, "*spatial channels"], taps: Taps = (1, 3, 3, 1)) -> Float[Array, "*large_spatial channels"]:
    """Twice as high and wide, by a separable filter with an even number of taps: the transpose of `blur(stride=2)` on
    4 times its values, with which a constant image keeps its value.
    """
    if len(taps) % 2:
        raise ValueError(f"taps must be even in number to double an image: got {len(taps)}")
    half = len(taps) // 2
    padding, scaled = (half, half - 1), [2 * tap / sum(taps) for tap in taps]
    return upfirdn(x, scaled, up=2, padding=padding)


class Upsample(eqx.Module):
    """An image `factor` times as high and wide, see `upsample`.

    Args:
        factor: at least 1.
        method: "nearest" or "bilinear", both as torch (`align_corners=False`).
    """

    factor: int = eqx.field(static=True)
    method: str = eqx.field(static=True)

    def __init__(self, factor: int = 2, method: str = "nearest", *, key: PRNGKeyArray | None = None):
        _check.positive(factor=factor)
        _check.one_of("method", method, METHODS)
        self.factor, self.method = factor, method

    def __call__(
        self, x: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "large_height large_width channels"]:
        _check.image(x)
        return upsample(x, self.factor, self.method)


class Downsample(eqx.Module):
    """An image of the means of each `factor` x `factor` square. Raises `ValueError` if `factor` does not divide a
    side.
    """

    factor: int = eqx.field(static=True)

    def __init__(self, factor: int = 2, *, key: PRNGKeyArray | None = None):
        _check.positive(factor=factor)
        self.factor = factor

    def __call__(
        self, x: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "small_height small_width channels"]:
        _check.image(x)
        return downsample(x, self.factor)


class BlurPool(eqx.Module):
    """A low-pass filter, then every `stride`-th pixel, see `blur`.

    Args:
        taps: of the filter along every axis; normalised to sum 1, which must not be 0.
        stride: at least 1.
    """

    taps: tuple[float, ...] = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(self, taps: Taps = (1, 3, 3, 1), *, stride: int = 2, key: PRNGKeyArray | None = None):
        _check.positive(stride=stride)
        if len(taps) == 0 or sum(taps) == 0:
            raise ValueError(f"taps must have a sum other than 0: got {tuple(taps)}")
        self.taps, self.stride = tuple(taps), stride

    def __call__(
        self, x: Float[Array, "*spatial channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*out_spatial channels"]:
        return blur(x, self.taps, stride=self.stride)


class PixelShuffle(eqx.Module):
    """`(height, width, channels * factor²)` to `(height * factor, width * factor, channels)` (Shi et al. 2016,
    arXiv:1609.05158, equation 4).

    Channel `(c * factor + i) * factor + j` becomes channel c of row i and column j of its square, as in torch.
    """

    factor: int = eqx.field(static=True)

    def __init__(self, factor: int = 2, *, key: PRNGKeyArray | None = None):
        _check.positive(factor=factor)
        self.factor = factor

    def __call__(
        self, x: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "large_height large_width out_channels"]:
        _check.image(x)
        if x.shape[-1] % self.factor**2:
            raise ValueError(f"the square of factor={self.factor} must divide channels: got shape {x.shape}")
        squares = in_steps(x, "h w (c i j) -> h i w j c", i=self.factor, j=self.factor)
        return in_steps(squares, "h i w j c -> (h i) w j c", "h w j c -> h (w j) c")


class PixelUnshuffle(eqx.Module):
    """The inverse of `PixelShuffle`. Raises `ValueError` if `factor` does not divide a side."""

    factor: int = eqx.field(static=True)

    def __init__(self, factor: int = 2, *, key: PRNGKeyArray | None = None):
        _check.positive(factor=factor)
        self.factor = factor

    def __call__(
        self, x: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "small_height small_width out_channels"]:
        _check.image(x)
        _check.divides(factor=self.factor, height=x.shape[0])
        _check.divides(factor=self.factor, width=x.shape[1])
        squares = in_steps(x, "(h i) w c -> h i w c", "h i (w j) c -> h w c i j", i=self.factor, j=self.factor)
        return in_steps(squares, "h w c i j -> h w (c i j)")
