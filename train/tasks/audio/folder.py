"""Resynthesis of recordings, streamed into wav files, and a picture of spectrograms: `train.sample` of sound."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Float32

from eqxgen.configs import MelConfig
from eqxgen.decoding import waves

from ..._errors import UserError
from ...data import save_picture
from ...data.audio.clips import checked
from ...data.audio.files import SUFFIXES, read_sound, write_sound
from ...data.audio.sources import load_sounds
from ...data.files.listing import files_at
from ...engine.recipes import Finished
from ...evaluators.sounds import spectrogram
from ...parallel import make_mesh
from ..sampling import at_most
from .asked import SoundSample
from .pictures import sheet

SHOWN = 8
"""Recordings that are shown."""
BLOCK = 64
"""Frames of which spectrograms are computed at a time, so that one program serves every length."""

Wave = Float32[np.ndarray, " samples"]


def draw(run: Finished, asked: SoundSample) -> int:
    """Writes the waveforms and the picture that `train.sample` asks for; gives the exit status.

    Raises:
        DataError: there is no file, or one cannot be read or is not as the run's recordings.
        UserError: the model's samples are not numbers, or a file cannot be written.
    """
    config, folder = run.config.mel, Path(asked.out)
    found = _held_out(run, asked) if asked.wavs is None else _of_files(run, asked)
    model, key = run.model(make_mesh(asked.mesh)), jr.key(asked.seed)
    rows, seconds, took, number = [], 0.0, 0.0, 0
    for number, (name, wave) in enumerate(found):
        mel, kept = mel_of(wave, config), []
        parts = _parts(model, mel, len(wave), asked, jr.fold_in(key, number), kept)
        began, path = time.perf_counter(), folder / f"{name}.wav"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_sound(path, parts, config.rate)
        except OSError as error:
            raise UserError(f"--out {path.parent}: {error.strerror}") from None
        except FloatingPointError as error:
            raise UserError(f"--run {asked.run}: {error}: its weights are damaged") from None
        if number:  # the first is compiled
            seconds, took = seconds + len(wave) / config.rate, took + time.perf_counter() - began
        if len(rows) < SHOWN:
            rows.append([mel, mel_of(np.concatenate(kept), config)])
    save_picture(asked.picture, sheet(rows), scale=1)
    speed = f", {seconds / took:.2f} seconds of sound a second" if took else ""
    print(f"{number + 1:,} waveforms in {asked.out}, {len(rows)} of them shown in {asked.picture}{speed}")
    return 0


def mel_of(wave: Wave, config: MelConfig) -> Float32[np.ndarray, "frames mels"]:
    """The spectrogram of a waveform, whose last frame is filled up with zeros. One program serves all lengths."""
    frames = -(-len(wave) // config.hop)
    blocks = -(-frames // BLOCK)
    padded = np.zeros(blocks * BLOCK * config.hop + 2 * config.margin, np.float32)
    padded[config.margin : config.margin + len(wave)] = wave
    size = BLOCK * config.hop
    parts = [spectrogram(padded[at * size : (at + 1) * size + 2 * config.margin], config) for at in range(blocks)]
    return np.concatenate([np.asarray(part) for part in parts])[:frames]


def _parts(model: Any, mel: np.ndarray, length: int, asked: SoundSample, key: Any, kept: list[Wave]) -> Iterator[Wave]:
    """Parts of a waveform of so many samples, as they are drawn; they are kept too."""
    left = length
    for part in waves.stream(model, mel[None], temperature=asked.temperature, key=key):
        kept.append(part[0, :left])
        left -= len(kept[-1])
        yield kept[-1]


def _of_files(run: Finished, asked: SoundSample) -> list[tuple[str, Wave]]:
    """Names and samples of files, all of which are checked before a model is read."""
    what = "a .wav or .flac file, or a folder of them"
    folder, names = files_at(Path(asked.wavs or ""), SUFFIXES, what, "--wavs", apart=True)
    config = run.config
    read = [
        checked(
            folder / name,
            read_sound(folder / name, hint="replace it, or take it out"),
            config.mel.rate,
            mix=asked.mix,
            resample=asked.resample,
            peak=config.data.peak,
            flags="--",
            skip="take the file out",
        )
        for name in names
    ]
    return [(name.rpartition(".")[0], wave / np.float32(32768)) for name, wave in zip(names, read)]


def _held_out(run: Finished, asked: SoundSample) -> Iterator[tuple[str, Wave]]:
    part = load_sounds(run.config.data, run.config.mel.rate).test
    count = at_most("--n", asked.n, len(part), "held-out recordings", usual=4)
    for row in (np.arange(count) * len(part)) // count:
        name = Path(part.names[row])
        yield str(name.with_suffix("") if name.suffix in SUFFIXES else name), part.waves[row] / np.float32(32768)
