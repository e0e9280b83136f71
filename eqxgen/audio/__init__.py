"""Signal processing of sound in JAX: spectrograms, the mel scale, companding, resampling."""

from eqxgen.audio.companding import from_levels, mu_law_compress, mu_law_expand, to_levels
from eqxgen.audio.mel import hz_to_mel, mel_filters, mel_to_hz
from eqxgen.audio.resample import resample
from eqxgen.audio.spectrogram import QUIET, log_mel, mel_spectrogram, stft

__all__ = [
    "QUIET",
    "from_levels",
    "hz_to_mel",
    "log_mel",
    "mel_filters",
    "mel_spectrogram",
    "mel_to_hz",
    "mu_law_compress",
    "mu_law_expand",
    "resample",
    "stft",
    "to_levels",
]
