"""Filters, transforms and mel spectrograms against librosa's answers, and the alignment of frames with samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.audio import QUIET, hz_to_mel, log_mel, mel_filters, mel_spectrogram, mel_to_hz, stft
from eqxgen.configs import MelConfig
from tests import oracles

KEPT = oracles.load("sound")
WAVE = KEPT["wave"]["wave"]
NEAR = {"rtol": 1e-4, "atol": 2e-5}


@pytest.mark.parametrize("norm", ["slaney", "none"])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_filters_are_librosas(scale, norm):
    kept, given = KEPT[f"filters_{scale}_{norm}"], {"scale": scale, "norm": norm}
    np.testing.assert_allclose(mel_filters(8000, 128, 10, **given), kept["whole"], atol=1e-7)
    np.testing.assert_allclose(mel_filters(22050, 512, 7, low=300.0, high=7600.0, **given), kept["part"], atol=1e-7)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_the_scale_is_librosas_and_its_own_inverse(scale):
    kept = KEPT[f"scale_{scale}"]
    np.testing.assert_allclose(mel_to_hz(kept["mels"], scale), kept["hz"], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(hz_to_mel(kept["hz"], scale), kept["mels"], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "reflect", "edge", "plain"])
def test_the_fourier_transform_is_librosas(padding):
    kept = KEPT[f"stft_{padding}"]
    options = {"centre": False} if padding == "plain" else {"padding": padding, "window": 100}
    found = np.asarray(stft(jnp.asarray(WAVE), 128, 50, **options)).T
    np.testing.assert_allclose(found.real, kept["real"], **NEAR)
    np.testing.assert_allclose(found.imag, kept["imaginary"], **NEAR)


@pytest.mark.parametrize("power", [1, 2])
def test_mel_spectrograms_are_librosas(power):
    kept, sizes = KEPT[f"mel_power_{power}"], {"low": 50.0, "high": 3500.0, "power": float(power)}
    run = lambda **more: np.asarray(mel_spectrogram(jnp.asarray(WAVE), 8000, 128, 50, 10, **sizes, **more)).T
    np.testing.assert_allclose(run(), kept["slaney"], **NEAR)
    np.testing.assert_allclose(run(scale="htk", norm="none", padding="reflect"), kept["htk"], **NEAR)


def test_an_impulse_is_loudest_in_the_frame_of_its_sample():
    config = MelConfig(rate=8000, n_fft=128, hop=20, mels=8)
    for sample in (41, 49, 50, 59, 93):
        wave = np.zeros(160 + 2 * config.margin, np.float32)
        wave[config.margin + sample] = 1.0
        mel = np.asarray(log_mel(jnp.asarray(wave), config))
        assert mel.shape == (8, 8)
        assert np.argmax(mel.sum(axis=1)) == sample // config.hop
    # Windows are symmetric about a frame's middle, between its tenth and eleventh sample.
    both = []
    for sample in (49, 51):
        wave = np.zeros(100 + 2 * config.margin, np.float32)
        wave[config.margin + sample] = 1.0
        both.append(np.asarray(log_mel(jnp.asarray(wave), config)))
    np.testing.assert_allclose(both[0][1], both[1][3], atol=1e-4)  # the periodic window is centred on sample 50
    assert mel.min() == pytest.approx(np.log(QUIET))


def test_a_wrong_argument_is_named(unchecked):
    wave = jnp.zeros(100)
    for call, says in (
        (lambda: stft(wave, 128, 50, centre=False), "wave must have at least n_fft=128 samples: got 100"),
        (lambda: stft(wave, 256, 50, padding="reflect"), "wave must be longer than n_fft // 2 = 128 to be reflected"),
        (lambda: stft(wave, 64, 50, window=65), r"window must be in \[1, n_fft=64\]: got 65"),
        (lambda: stft(wave, 64, 9, window=2.5), "window must be an integer of at least 1: got 2.5"),
        (lambda: stft(jnp.zeros(100, int), 64, 9), "wave must be of a floating-point type: got int32"),
        (lambda: mel_spectrogram(wave, 8000, 64, 9, 4, power=-1.0), "power must be positive and finite: got -1.0"),
        (lambda: stft(wave, 64, 0), "hop must be an integer of at least 1: got 0"),
        (lambda: stft(wave, 64, 9, padding="mirror"), "padding must be one of edge, reflect, zeros: got 'mirror'"),
        (lambda: mel_filters(8000, 64, 4, high=5000.0), "low and high must rise from 0 to at most rate / 2 = 4000"),
        (lambda: mel_filters(8000, 64, 4, scale="bark"), "scale must be one of htk, slaney: got 'bark'"),
        (lambda: MelConfig(n_fft=128, hop=99), "mel.n_fft must be at least mel.hop and an even number more"),
        (lambda: MelConfig(high=9000.0), "mel.low and mel.high must rise from 0 to at most half of mel.rate"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
