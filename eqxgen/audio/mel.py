"""The mel scale and its triangular filters, by the definitions of librosa: Slaney's and HTK's.

    HTK       m = 2595 log10(1 + f / 700)
    Slaney    m = f / (200/3) below 1000 Hz, and 15 + 27 log(f / 1000) / log 6.4 from there on

Source: Slaney, "Auditory Toolbox", 1998; Young et al., "The HTK Book", section 5.4.
"""

import functools

import numpy as np
from jaxtyping import Float32, Float64

from eqxgen.nn import _check

SCALES, NORMS = ("slaney", "htk"), ("slaney", "none")
_STEP, _EDGE = 200 / 3, 1000.0  # of Slaney's scale: Hz of a mel below the edge, and the edge
_GROWTH = np.log(6.4) / 27  # logarithm of the ratio of neighbouring mels above it


def hz_to_mel(hz: Float64[np.ndarray, "*shape"], scale: str = "slaney") -> Float64[np.ndarray, "*shape"]:
    """Mels of frequencies in Hz."""
    _check.one_of("scale", scale, SCALES)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = _EDGE / _STEP + np.log(np.maximum(hz, _EDGE) / _EDGE) / _GROWTH
    return np.where(hz >= _EDGE, above, hz / _STEP)


def mel_to_hz(mel: Float64[np.ndarray, "*shape"], scale: str = "slaney") -> Float64[np.ndarray, "*shape"]:
    """Frequencies in Hz of mels."""
    _check.one_of("scale", scale, SCALES)
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    edge = _EDGE / _STEP
    return np.where(mel >= edge, _EDGE * np.exp(_GROWTH * (np.maximum(mel, edge) - edge)), mel * _STEP)


@functools.lru_cache(maxsize=32)
def mel_filters(
    rate: int,
    n_fft: int,
    mels: int,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "slaney",
    norm: str = "slaney",
) -> Float32[np.ndarray, "mels bins"]:
    """Triangles over the bins of a Fourier transform, evenly spaced in mels; read-only, as they are kept.

    Args:
        rate: samples a second.
        n_fft: samples of a transform, which has n_fft // 2 + 1 bins.
        mels: number of triangles.
        low, high: lower edge of the first and upper edge of the last in Hz; by default 0 and rate / 2.
        scale: slaney or htk.
        norm: slaney: each of area 1 in Hz; none: each of height 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check.positive(rate=rate, n_fft=n_fft, mels=mels)
    _check.one_of("norm", norm, NORMS)
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2:
        raise ValueError(f"low and high must rise from 0 to at most rate / 2 = {rate / 2:g}: got {low:g}, {high:g}")
    ends = hz_to_mel(np.array([low, high], np.float64), scale)
    edges = mel_to_hz(np.linspace(ends[0], ends[1], mels + 2), scale)
    bins = np.fft.rfftfreq(n_fft, 1 / rate)
    spans = np.diff(edges)[:, None]
    rising = (bins[None] - edges[:-2, None]) / spans[:-1]
    falling = (edges[2:, None] - bins[None]) / spans[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    filters = filters.astype(np.float32)
    filters.flags.writeable = False
    return filters
