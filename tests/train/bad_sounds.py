"""Recordings that cannot be trained on or resynthesised: cases 144 and 145 of the list of bad inputs."""

import json
import shlex
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.train.bad_config import flags
from tests.train.bad_input import Case

TONE = (9000 * np.sin(np.arange(2001) / 5)).astype("<i2")
RUN = "--run-dir run --data.name ./x --steps 1"


def save(path: Path, samples: np.ndarray = TONE, rate: int = 8000) -> None:
    """A wav file of 16 bits; samples `(n,)`, or `(n, channels)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def sounds(what: str, change: Callable[[Path], object], says: str, words: str = "") -> Case:
    """A folder of three good recordings of odd lengths, changed."""

    def prepare(folder: Path) -> list[str]:
        for row in range(3):
            save(folder / "x" / f"{row}.wav", TONE[: 1900 + row])
        change(folder / "x")
        return ["train.wavegru", *shlex.split(RUN), *shlex.split(words)]

    return Case(144, what, prepare, says)


def asked(what: str, change: Callable[[Path], object], says: str, words: str = "") -> Case:
    """A recording `x/0.wav`, changed, for a run whose model is not read."""

    def prepare(folder: Path) -> list[str]:
        from train import wavegru
        from train.config.base import to_dict
        from train.tasks.audio.recipe import facts_of

        config = wavegru.PRESETS["fsdd"]
        record = {"recipe": "wavegru", "config": to_dict(config), "facts": facts_of(config).to_record()}
        (folder / "run").mkdir()
        (folder / "run" / "config.json").write_text(json.dumps(record))
        save(folder / "x" / "0.wav")
        change(folder / "x")
        return ["train.sample", "--run", "run", "--wavs", "x", "--out", "out/", *shlex.split(words)]

    return Case(144, f"resynthesis of {what}", prepare, says)


def wrong(words: str, says: str) -> Case:
    return flags(145, words, says, module="train.wavegru")


def noise(path: Path) -> None:
    path.write_bytes(b"no sound at all" * 9)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


STEREO = np.stack([TONE, TONE], axis=1)
LOUD = np.clip(np.int32(6) * TONE, -32768, 32767)

CASES = [
    sounds("two channels", lambda path: save(path / "1.wav", STEREO), "x/1.wav: expected 1 channel, got 2: convert it, or pass --data.mix to average the channels"),
    sounds("another rate", lambda path: save(path / "1.wav", rate=16000), "x/1.wav: expected 8,000 samples a second, got 16,000: pass --data.resample, or give the run its rate"),
    sounds("a silent file", lambda path: save(path / "1.wav", 0 * TONE), "x/1.wav: expected a sound, got silence: all samples are equal: take the file out, or pass --data.skip-broken"),
    sounds("a clipped file", lambda path: save(path / "1.wav", LOUD), r"x/1.wav: expected a sound with fewer than 8 samples in a row at the end of its range, got \d+: it is clipped: record it at a lower level"),
    sounds("an empty file", lambda path: save(path / "1.wav", TONE[:0]), "x/1.wav: expected a sound of one sample or more, got none"),
    sounds("a file that is no sound", lambda path: noise(path / "1.wav"), "x/1.wav: expected a wav or flac file, got .*: replace it, take it out, or pass --data.skip-broken"),
    sounds("two bad files", lambda path: [noise(path / f"{row}.wav") for row in (0, 1)], "x: expected files that can be read, got 2 of 3 files that cannot: 0.wav .*, 1.wav"),
    sounds("two channels in every file", lambda path: [save(path / f"{row}.wav", STEREO) for row in range(3)], r"x/0.wav: expected 1 channel, got 2: convert it, or pass --data.mix to average the channels \(3 of 3 files are not as asked\)"),
    sounds("two channels and --data.skip-broken", lambda path: save(path / "1.wav", STEREO), "x/1.wav: expected 1 channel, got 2: convert it, or pass --data.mix", "--data.skip-broken"),
    sounds("another rate in every file", lambda path: [save(path / f"{row}.wav", rate=16000) for row in range(3)], "x/0.wav: expected 8,000 samples a second, got 16,000: pass --data.resample"),
    sounds("a file that ends early", lambda path: cut(path / "1.wav"), r"x/1.wav: expected 3,802 bytes of samples, as its header says, got 1,956: replace it"),
    sounds("one recording", lambda path: [(path / f"{row}.wav").unlink() for row in (1, 2)], "x: expected two or more recordings, one to hold out, got 1: add recordings"),
    sounds("no recording", lambda path: [(path / f"{row}.wav").rename(path / f"{row}.txt") for row in range(3)], "x: expected a folder of .wav or .flac files, got none; 3 left out: 3 of another kind"),
    sounds("a speaker that is not there", lambda path: save(path / "ann" / "3.wav"), "x: expected speakers of ann, got bob: correct --data.speakers", "--data.speakers bob"),
    sounds("every speaker held out", lambda path: [(path / f"{row}.wav").rename(path / f"{row}.bak") for row in range(3)] + [save(path / "ann" / "3.wav")], "x: expected a training recording, got none", "--data.speakers ann"),
    sounds("an index of missing files", lambda path: [(path / "wavs").mkdir(), (path / "metadata.csv").write_text("LJ001|a|a\n")], "x: expected the recordings of metadata.csv, got 1 of 1 missing: wavs/LJ001.wav"),
    asked("two channels", lambda path: save(path / "0.wav", STEREO), "x/0.wav: expected 1 channel, got 2: convert it, or pass --mix to average the channels"),
    asked("another rate", lambda path: save(path / "0.wav", rate=22050), "x/0.wav: expected 8,000 samples a second, got 22,050: pass --resample"),
    asked("silence", lambda path: save(path / "0.wav", 0 * TONE + 5), "x/0.wav: expected a sound, got silence: all samples are equal: take the file out"),
    asked("half of a sound", lambda path: cut(path / "0.wav"), "x/0.wav: expected 4,002 bytes of samples, as its header says, got 1,956: replace it, or take it out"),
    asked("no sound", lambda path: noise(path / "0.wav"), "x/0.wav: expected a wav or flac file, got .*: replace it, or take it out"),
    asked("nothing", lambda path: (path / "0.wav").unlink(), "x: expected a .wav or .flac file, or a folder of them, got none: correct --wavs"),
    wrong("--data.name fsdx", "data.name must be one of fsdd, or a path: got 'fsdx'; did you mean fsdd"),
    wrong("--data.peak 2", r"data.peak must be in \[0, 1\]: got 2"),
    wrong("--data.speakers theo theo", "data.speakers must be each given once: got theo theo"),
    wrong("--mel.n-fft 511", "mel.n_fft must be at least mel.hop and an even number more"),
    wrong("--mel.hop 102", "model.upsample must have a product that divides mel.hop: got 25 and mel.hop=102"),
    wrong("--mel.high 4001", "mel.low and mel.high must rise from 0 to at most half of mel.rate"),
    wrong("--model.head gauss", "model.head must be one of mu_law, dual, logistics: got 'gauss'"),
    wrong("--frames 0", "frames must be at least 1: got 0"),
    wrong("--sparse.sparsity 1", r"sparse.sparsity must be in \[0, 1\): got 1"),
    wrong("--sparse.sparsity 0.5 --sparse.block 7", r"sparse.block must divide the rows of the recurrent layer, 3 \* model.dim: got 7"),
]  # fmt: skip
