"""The recipe of sound: runs of the loop, bits of held-out windows, resynthesis of files, zeros in blocks."""

import dataclasses
import json
import math
import wave

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from eqxgen.configs import MelConfig, WaveGRUConfig
from eqxgen.models import WaveGRU
from tests.arrays import filled
from tests.full import full
from tests.train.bad_sounds import save
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from train import sample, wavegru
from train._errors import DataError
from train.config.sounds import SoundConfig
from train.data.audio.files import read_sound
from train.data.audio.sources import load_sounds
from train.data.feed.order import Order
from train.evaluators.sounds import prepared
from train.tasks.audio.cuts import Cut
from train.tasks.audio.pruning import block_mask, pruned, sparsity_at
from train.tasks.audio.recipe import cuts, held_out_windows
from train.tasks.audio.sparse import SparseConfig

MEL = MelConfig(n_fft=60, hop=20, mels=4)
SIZES = WaveGRUConfig(8, 4, 4, dilations=(1,), upsample=(2, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones of two speakers, of odd lengths; one is shorter than a cut."""
    root, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for row, who in enumerate(("ann", "ann", "ben", "ann", "ben", "ann")):
        count = 61 if row == 3 else 501 + 7 * row
        tone = np.sin(np.arange(count) * (0.1 + 0.05 * row)) + 0.1 * rng.standard_normal(count)
        save(root / who / f"{row}.wav", np.rint(6000 * tone))
    return root


def config_of(run, folder, **changes):
    data = SoundConfig(str(folder), speakers=("ben",))
    values = {"steps": 6, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "frames": 5}
    values |= {"eval_frames": 8, "eval_sounds": 3, "mel": MEL, "model": SIZES}
    return wavegru.Config(run_dir=str(run), data=data, **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folder):
    run = tmp_path_factory.mktemp("wavegru") / "whole"
    sparse = SparseConfig(sparsity=0.5, block=4, start=1, end=4, every=2)
    assert wavegru.main(config_of(run, folder, sparse=sparse)) == 0
    return run


@full
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, folder, tmp_path, monkeypatch):
    sparse = SparseConfig(sparsity=0.5, block=4, start=1, end=4, every=2)
    crashed_and_resumed(wavegru, config_of(tmp_path, folder, sparse=sparse), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


def test_half_of_the_blocks_of_a_sparse_run_are_zero(whole):
    for name in ("cell.from_input.weight", "cell.from_output.weight"):
        matrix = weights(whole)[name]
        blocks = (matrix != 0).reshape(-1, 4, matrix.shape[1]).sum(axis=1)
        assert set(np.unique(blocks)) == {0, 4}
        assert (blocks == 0).sum() == blocks.size // 2


def test_bits_are_of_the_samples_of_every_held_out_recording(whole, folder):
    model, config = train.load(whole / "model.safetensors"), config_of(whole, folder)
    sounds = load_sounds(config.data, 8000, say=lambda line: None)
    assert isinstance(model, WaveGRU)
    assert [len(x) for x in sounds.test.waves] == [515, 529]
    windows = held_out_windows(sounds, config)
    found = windows.read(np.arange(windows.size))
    assert found["length"].sum() == 515 + 529
    # The windows of a recording, without their sides, are the recording.
    cut = Cut.of(8, 1, MEL)
    inner = found["wave"][:, cut.beside : cut.beside + cut.samples]
    np.testing.assert_array_equal(inner[:4].reshape(-1)[:515], sounds.test.waves[0])
    run = eqx.filter_jit(lambda model, wave: model.losses(*prepared(model, wave, MEL)))
    nats = sum(float(run(model, w)[:n].sum()) for w, n in zip(found["wave"], found["length"]))
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["eval_bits"] == pytest.approx(nats / (515 + 529) / math.log(2), rel=1e-4)
    assert summary["eval_loss"] == pytest.approx(summary["eval_bits"] * math.log(2))
    assert summary["mel_distance"] > 0
    card = (whole / "README.md").read_text()
    assert '<audio controls src="samples/step-0000006.wav">' in card
    assert "samples/step-0000006.png" in card


def test_cuts_depend_on_the_seed_the_step_and_the_place_alone(folder, tmp_path):
    config = config_of(tmp_path, folder)
    sounds = load_sounds(config.data, 8000, say=lambda line: None)
    cut, order = Cut.of(5, 1, MEL), Order(0, 4, len(sounds.train))
    both, rest = (cuts(sounds, config, cut, order.part(5, chosen)) for chosen in (slice(None), slice(2, 4)))
    for name, array in both.items():
        np.testing.assert_array_equal(array[2:], rest[name])
    assert both["wave"].shape == (4, 100 + 2 * (20 + 20))
    short = sounds.train.names.index("ann/3.wav")
    row = cut.batch(sounds.train, np.array([short]), np.array([0]))
    assert row["length"].tolist() == [61]
    np.testing.assert_array_equal(row["wave"][0, 40:101], sounds.train.waves[short])
    assert not row["wave"][0, :40].any()
    assert not row["wave"][0, 101:].any()


def test_recordings_are_centred_scaled_mixed_and_resampled_where_asked(folder, tmp_path):
    wave_ = np.rint(4000 * np.sin(np.arange(999) / 7)) + 1000
    save(tmp_path / "a.wav", np.stack([wave_, wave_], axis=1), rate=16000)
    save(tmp_path / "b.wav", wave_)
    asked = SoundConfig(str(tmp_path), mix=True, resample=True)
    found = load_sounds(asked, 8000, say=lambda line: None)
    both = dict(zip((*found.train.names, *found.test.names), (*found.train.waves, *found.test.waves)))
    assert len(both["a.wav"]) == 500
    for samples in both.values():
        assert np.abs(samples).max() == pytest.approx(0.95 * 32767, abs=1)
        assert abs(samples.mean()) < 2
    plain = load_sounds(dataclasses.replace(asked, peak=0.0), 8000, say=lambda line: None)
    both = dict(zip((*plain.train.names, *plain.test.names), (*plain.train.waves, *plain.test.waves)))
    assert np.abs(both["b.wav"] - wave_).max() <= 1


def test_of_a_folder_in_ljspeechs_form_the_recordings_of_its_index_are_read(tmp_path):
    for row in range(5):
        save(tmp_path / "wavs" / f"LJ00{row}.wav", np.rint(9000 * np.sin(np.arange(401 + row) / 7)))
    save(tmp_path / "wavs" / "unlisted.wav", np.arange(300))
    index = ["LJ003|the 3rd|the third", "LJ000|a|a", "LJ004|b, c|b, c", "LJ001|d|d"]
    (tmp_path / "metadata.csv").write_text("\n".join(index) + "\n")
    lines = []
    found = load_sounds(SoundConfig(str(tmp_path), held_out=0.3), 8000, say=lines.append)
    read = {name: len(x) for part in (found.train, found.test) for name, x in zip(part.names, part.waves)}
    assert read == {f"wavs/LJ00{row}.wav": 401 + row for row in (3, 0, 4, 1)}
    assert len(found.test)
    left = "2 left out: 2 not in metadata.csv (wavs/LJ002.wav, wavs/unlisted.wav)"
    assert lines[0] == f"{tmp_path}: 4 recordings of metadata.csv; {left}"
    (tmp_path / "metadata.csv").write_text("LJ001|d|d\nLJ001|d|d\n")
    with pytest.raises(DataError, match=r"expected each recording once, got twice: wavs/LJ001\.wav"):
        load_sounds(SoundConfig(str(tmp_path)), 8000, say=lines.append)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_plain_wav_of_every_width_is_read_without_soundfile(width, tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.audio.files.library", lambda: None)
    levels = np.array([[-1.0, 0.5], [0.25, 0.0]])
    whole = np.rint(levels * 2 ** (8 * width - 1)).astype(np.int64) + (128 if width == 1 else 0)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(11025)
        file.writeframes(b"".join(int(x).to_bytes(width, "little", signed=width > 1) for x in whole.ravel()))
    found = read_sound(tmp_path / "x.wav")
    assert found.rate == 11025
    np.testing.assert_allclose(found.samples, levels, atol=1e-6)
    with pytest.raises(train._errors.DataError, match=r'soundfile, which reads flac, .*pip install "eqxgen\[audio\]"'):
        read_sound(tmp_path / "x.flac")


def test_a_wav_whose_writer_did_not_know_its_length_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.audio.files.library", lambda: None)
    save(tmp_path / "x.wav", np.arange(100))
    data = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(data[:40] + b"\xff" * 4 + data[44:])
    assert len(read_sound(tmp_path / "x.wav").samples) == 100


def test_flac_is_read_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    samples = (0.5 * np.sin(np.arange(301) / 9)).astype(np.float32)
    soundfile.write(tmp_path / "x.flac", samples, 8000)
    found = read_sound(tmp_path / "x.flac")
    assert (found.rate, found.samples.shape) == (8000, (301, 1))
    np.testing.assert_allclose(found.samples[:, 0], samples, atol=1e-4)


def test_files_of_any_length_are_resynthesised_at_their_length(whole, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample.main(words(run=whole, wavs=folder / "ann", out=f"{out}/")) == 0
    assert "4 waveforms" in capsys.readouterr().out
    for name, count in {"0": 501, "1": 508, "3": 61, "5": 536}.items():
        found = read_sound(out / f"{name}.wav")
        assert (found.rate, found.samples.shape) == (8000, (count, 1))
    assert (tmp_path / "out.png").exists()
    assert sample.main(words(run=whole, n=1, out=f"{tmp_path}/held/", temperature=0.5)) == 0
    assert len(list((tmp_path / "held").rglob("*.wav"))) == 1


def test_the_share_of_zeros_rises_by_the_schedule_and_takes_the_smallest_blocks():
    config = SparseConfig(sparsity=0.8, start=10, end=20)
    found = [float(sparsity_at(step, config)) for step in (0, 10, 15, 20, 99)]
    np.testing.assert_allclose(found, [0, 0, 0.8 * 0.875, 0.8, 0.8], atol=1e-6)
    weight = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3)), jnp.float32)
    mask = np.asarray(block_mask(weight, 0.5, 4))
    sums = np.abs(np.asarray(weight)).reshape(2, 4, 3).sum(axis=1)
    np.testing.assert_array_equal(mask.reshape(2, 4, 3)[:, 0], sums >= np.sort(sums.ravel())[3])
    model = filled(lambda key: WaveGRU(4, 20, SIZES, key=key))
    assert pruned(model, None) is model
    slopes = jax.grad(lambda weight: jnp.sum(jnp.where(mask, weight, 0.0)))(weight)
    np.testing.assert_array_equal(slopes != 0, mask)
