"""librosa's mel filters, Fourier transforms, mel spectrograms and mu-law, on a drawn waveform."""

from typing import Any

import numpy as np

from tests.oracles import Cases


def cases() -> Cases:
    import librosa

    rng = np.random.default_rng(0)
    wave = (0.3 * rng.standard_normal(1003) * np.sin(np.arange(1003) / 9)).astype(np.float32)
    found: dict[str, dict[str, Any]] = {"wave": {"wave": wave}}
    for scale in ("slaney", "htk"):
        for norm in ("slaney", "none"):
            given = {"htk": scale == "htk", "norm": None if norm == "none" else norm, "dtype": np.float64}
            whole = librosa.filters.mel(sr=8000, n_fft=128, n_mels=10, **given)
            part = librosa.filters.mel(sr=22050, n_fft=512, n_mels=7, fmin=300, fmax=7600, **given)
            found[f"filters_{scale}_{norm}"] = {"whole": whole, "part": part}
        mels = np.linspace(0, 40, 9)
        hz = librosa.mel_to_hz(mels, htk=scale == "htk")
        found[f"scale_{scale}"] = {"mels": mels, "hz": hz, "again": librosa.hz_to_mel(hz, htk=scale == "htk")}
    for name, pad_mode in {"zeros": "constant", "reflect": "reflect", "edge": "edge"}.items():
        centred = librosa.stft(wave, n_fft=128, hop_length=50, win_length=100, pad_mode=pad_mode)
        found[f"stft_{name}"] = {"real": centred.real, "imaginary": centred.imag}
    plain = librosa.stft(wave, n_fft=128, hop_length=50, center=False)
    found["stft_plain"] = {"real": plain.real, "imaginary": plain.imag}
    for power in (1, 2):
        sizes = {"sr": 8000, "n_fft": 128, "hop_length": 50, "n_mels": 10, "power": power, "fmin": 50, "fmax": 3500}
        htk = {"htk": True, "norm": None, "pad_mode": "reflect"}
        found[f"mel_power_{power}"] = {
            "slaney": librosa.feature.melspectrogram(y=wave, **sizes),
            "htk": librosa.feature.melspectrogram(y=wave, **sizes, **htk),
        }
    x = np.linspace(-1, 1, 31)
    compressed = librosa.mu_compress(x, mu=255, quantize=False)
    found["mu_law"] = {"x": x, "compressed": compressed, "expanded": librosa.mu_expand(x, mu=255, quantize=False)}
    return found
