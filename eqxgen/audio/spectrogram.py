"""Short-time Fourier transform, and mel spectrograms of one waveform, by the definitions of librosa."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from eqxgen._widen import widen
from eqxgen.audio.mel import mel_filters
from eqxgen.configs import MelConfig
from eqxgen.nn import _check

QUIET = 1e-5
"""Least magnitude of a band before the logarithm."""
PADDINGS = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def stft(
    wave: Float[Array, " samples"],
    n_fft: int,
    hop: int,
    *,
    window: int | None = None,
    centre: bool = True,
    padding: str = "zeros",
) -> Complex[Array, "frames bins"]:
    """Short-time Fourier transform under a periodic Hann window, in float32 at least.

    Args:
        wave: the samples.
        n_fft: samples of a frame, which has n_fft // 2 + 1 bins.
        hop: samples between frames.
        window: samples of the window, in the middle of the frame; n_fft by default.
        centre: frame t is centred on sample t * hop of a wave that is padded by n_fft // 2 at either end; else it
            begins there, and the wave is not padded.
        padding: of a centred one: zeros, reflect or edge.

    Raises:
        ValueError: an argument is out of its range, or the wave is shorter than a frame or than its reflection.
    """
    _check.positive(n_fft=n_fft, hop=hop)
    _check.example(wave, "samples", name="wave")
    _check.inexact(wave, "wave")
    _check.one_of("padding", padding, PADDINGS)
    window = n_fft if window is None else window
    _check.positive(window=window)
    if window > n_fft:
        raise ValueError(f"window must be in [1, n_fft={n_fft}]: got {window}")
    wave = widen(wave)
    if centre:
        if padding == "reflect" and len(wave) <= n_fft // 2:
            raise ValueError(f"wave must be longer than n_fft // 2 = {n_fft // 2} to be reflected: got {len(wave)}")
        wave = jnp.pad(wave, n_fft // 2, mode=PADDINGS[padding])
    if len(wave) < n_fft:
        raise ValueError(f"wave must have at least n_fft={n_fft} samples: got {len(wave)}; pad it")
    frames = 1 + (len(wave) - n_fft) // hop
    places = hop * np.arange(frames)[:, None] + np.arange(n_fft)[None]
    shape = np.zeros(n_fft)
    left = (n_fft - window) // 2
    shape[left : left + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return jnp.fft.rfft(wave[places] * jnp.asarray(shape, wave.dtype)[None], axis=-1)


def mel_spectrogram(
    wave: Float[Array, " samples"],
    rate: int,
    n_fft: int,
    hop: int,
    mels: int,
    *,
    low: float = 0.0,
    high: float | None = None,
    power: float = 2.0,
    scale: str = "slaney",
    norm: str = "slaney",
    centre: bool = True,
    padding: str = "zeros",
) -> Float[Array, "frames mels"]:
    """Mel filters over the magnitudes of `stft` to a power: 1 for magnitudes, 2 for energies; float32 at least.

    The other arguments are those of `stft` and of `eqxgen.audio.mel_filters`. librosa has bands first: its transpose.

    Raises:
        ValueError: as those two, or power is not positive.
    """
    _check.above_zero(power=power)
    filters = mel_filters(rate, n_fft, mels, low=low, high=high, scale=scale, norm=norm)
    magnitudes = jnp.abs(stft(wave, n_fft, hop, centre=centre, padding=padding))
    return magnitudes**power @ jnp.asarray(filters.T, magnitudes.dtype)


def log_mel(wave: Float[Array, " padded"], config: MelConfig) -> Float[Array, "frames mels"]:
    """Natural logarithm of the mel magnitudes, at least `QUIET` each, of frames that are centred on their samples.

    Frame t is of the samples [t * hop, (t + 1) * hop) after the margin, and its window is centred on their middle:
    n samples have n / hop frames.

    Args:
        wave: the samples, with `config.margin` more at either end: zeros, or what comes before and after.
        config: of the spectrogram.
    """
    found = mel_spectrogram(
        wave,
        config.rate,
        config.n_fft,
        config.hop,
        config.mels,
        low=config.low,
        high=config.top,
        power=1.0,
        centre=False,
    )
    return jnp.log(jnp.maximum(found, QUIET))
