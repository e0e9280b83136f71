"""Modulated convolution of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, section 2.2)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.models.gan.equalised import TAPS, resampling
from eqxgen.nn.conv.resample import Taps

EPSILON = 1e-8


def modulated_convolution(
    x: Float[Array, "height width in_channels"],
    weight: Float[Array, "kernel kernel in_channels out_channels"],
    style: Float[Array, " in_channels"],
    *,
    demodulate: bool = True,
    resample: str | None = None,
    taps: Taps = TAPS,
) -> Float[Array, "out_height out_width out_channels"]:
    """A convolution whose kernel is scaled by a style for each input channel, and to length 1 for each output channel.

        y = d · conv(s · x, w),      d[o] = 1 / sqrt(Σ w[..., i, o]² s[i]² + 1e-8)       (equations 1 and 3)

    The inputs and the outputs are scaled, never the kernel: a kernel for each example of a batch is a grouped
    convolution, whose gradient is 60 to 700 times as slow on a CPU.

    In half precision, kernel and style are first divided by their largest entries, which d makes up for (StyleGAN2-ADA,
    arXiv:2006.06676, appendix D). Scales are computed in float32 at least.

    Args:
        style: of this example.
        demodulate: scales the output by d.
        resample: None, "up" or "down", by a filter.
        taps: of that filter.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    kernel, style = weight.astype(wide), style.astype(wide)
    if x.dtype.itemsize < 4 and demodulate:
        largest = jnp.max(jnp.abs(kernel), axis=(0, 1, 2), keepdims=True)
        kernel = kernel / (largest * math.sqrt(math.prod(kernel.shape[:3])))
        style = style / jnp.max(jnp.abs(style))
    y = resampling(x * style.astype(x.dtype)[None, None], kernel.astype(x.dtype), resample, taps)
    if not demodulate:
        return y
    lengths = jnp.sum(kernel**2, axis=(0, 1)).T @ style**2
    return y * jax.lax.rsqrt(lengths + EPSILON).astype(x.dtype)[None, None]
