"""Resampling by a ratio of integers: a polyphase filter, equal to `scipy.signal.resample_poly`."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from eqxgen._widen import widen
from eqxgen.nn import _check


def resample(wave: Float[Array, " samples"], rate: int, new_rate: int) -> Float[Array, " new_samples"]:
    """The waveform at another rate, with zeros beyond its ends; ceil(samples * new_rate / rate) samples, in float32 at
    least. Frequencies above half the lower rate are removed by a windowed sinc of 20 of its samples.

    Args:
        wave: the samples.
        rate: samples a second.
        new_rate: those of the result.

    Raises:
        ValueError: a rate is below 1, or the wave has no samples or is not of a floating-point type.
    """
    _check.positive(rate=rate, new_rate=new_rate)
    _check.example(wave, "samples", name="wave")
    _check.inexact(wave, "wave")
    if wave.shape[0] == 0:
        raise ValueError("wave must have one sample or more: got none")
    wave, common = widen(wave), math.gcd(rate, new_rate)
    up, down = new_rate // common, rate // common
    if up == down:
        return wave
    taps = jnp.asarray(_filter(up, down), wave.dtype)
    half, count = len(taps) // 2, -(-len(wave) * up // down)
    # Output m is the filter centred on sample m * down of the wave with up - 1 zeros between its samples.
    right = (count - 1) * down + half - (len(wave) - 1) * up
    y = jax.lax.conv_general_dilated(
        wave[None, None], taps[None, None], (down,), [(half, right)], lhs_dilation=(up,), precision="highest"
    )
    return y[0, 0]


@functools.lru_cache(maxsize=32)
def _filter(up: int, down: int) -> Float64[np.ndarray, " taps"]:
    """A sinc that ends at the lower of both rates, under a Kaiser window of beta 5."""
    from scipy.signal import firwin

    slower = max(up, down)
    window: Any = "kaiser", 5.0
    return np.asarray(firwin(20 * slower + 1, 1 / slower, window=window)) * up
