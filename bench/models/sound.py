"""Bits of a held-out sample of `train.wavegru`, of the same net without a spectrogram, and of linear prediction:
`EQXGEN_DATA=DATA python -m bench.models.sound --run runs/wavegru-fsdd --alone runs/alone`.

Linear prediction of order 16 has a Laplace distribution of the residual, and gives each mu-law level the mass of its
step. All see the same levels of the same windows. `fixed` has the coefficients and the scale of the training
recordings; `adaptive` takes both anew for each 100 samples, from the 400 samples before. Both are mixed with 0.1 % of
a uniform distribution, so that no level has the mass 0. Writes bench/results/cpu/sound.json with the numbers, the
distance of the recordings from their own 8 bits, and the speed of sampling.
"""

import argparse
import json
import math
import pathlib
import time
from typing import Any

import jax
import jax.random as jr
import numpy as np

from eqxgen.audio import from_levels, to_levels
from eqxgen.decoding import waves
from train.data.audio.sources import load_sounds
from train.engine.recipes import Finished, recipe_of
from train.evaluators.sounds import distance
from train.tasks.audio.folder import mel_of
from train.tasks.audio.recipe import held_out_windows, spread

ORDER, BLOCK, PAST, UNIFORM = 16, 100, 400, 1e-3
MOST = 200_000  # samples of the training recordings that the fixed predictor is fitted to
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "sound.json"


def opened(folder: pathlib.Path) -> tuple[Finished, dict[str, Any]]:
    """A finished run and its summary."""
    record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return recipe_of(record, folder).open(folder, record, folder), summary


def expanded(levels: np.ndarray) -> np.ndarray:
    """Samples of levels of 8 bits by mu-law, in float64."""
    return np.asarray(from_levels(levels.astype(np.int32), 8, 255), np.float64)


def quantised(wave: np.ndarray) -> np.ndarray:
    """Levels of 8 bits by mu-law of samples in 16 bits."""
    return np.asarray(to_levels(wave.astype(np.float32) / np.float32(32768), 8, 255))


def predictor(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients of least squares for each sample from the 16 before it, and the mean magnitude of the residual."""
    rows = np.lib.stride_tricks.sliding_window_view(x, ORDER + 1)
    past, now = rows[:, :ORDER], rows[:, ORDER]
    gram = past.T @ past
    gram += (1e-9 * len(past) + 1e-6 * np.trace(gram) / ORDER) * np.eye(ORDER)  # silence has no inverse
    found = np.linalg.solve(gram, past.T @ now)
    return found, max(float(np.mean(np.abs(now - past @ found))), 1e-4)


def nats(levels: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """-log of the mass of each level's step under Laplace distributions."""
    edges = expanded_edges()
    cdf = lambda z: np.where(z < 0, 0.5 * np.exp(np.minimum(z, 0)), 1 - 0.5 * np.exp(-np.maximum(z, 0)))
    low, high = ((edges[at] - centre) / scale for at in (levels, levels + 1))
    return -np.log((1 - UNIFORM) * np.maximum(cdf(high) - cdf(low), 0) + UNIFORM / 256)


def expanded_edges() -> np.ndarray:
    """Ends of the steps of all levels, `(257,)`: halfway between them after companding."""
    inner = (np.arange(1, 256) - 0.5) * (2 / 255) - 1
    return np.concatenate([[-np.inf], np.sign(inner) * np.expm1(np.abs(inner) * np.log(256)) / 255, [np.inf]])


def linear(levels: np.ndarray, start: int, length: int, fixed: tuple[np.ndarray, float] | None) -> float:
    """Nats of `length` levels from `start` on; without `fixed` coefficients, by adaptive ones."""
    x, total = expanded(levels), 0.0
    for first in range(start, start + length, BLOCK):
        last = min(first + BLOCK, start + length)
        found, scale = fixed or predictor(x[first - PAST : first])
        rows = np.lib.stride_tricks.sliding_window_view(x[first - ORDER : last - 1], ORDER)
        total += float(nats(levels[first:last], rows @ found, np.full(last - first, scale)).sum())
    return total


def speed(model: Any, wave: np.ndarray, config: Any, count: int) -> float:
    """Seconds of sound that are drawn a second, of so many recordings at a time; compiled before."""
    mels = np.repeat(mel_of(wave, config)[None], count, axis=0)
    waves.generate(model, mels[:, :16], key=jr.key(0))
    began = time.perf_counter()
    waves.generate(model, mels, key=jr.key(1))
    return count * len(wave) / config.rate / (time.perf_counter() - began)


def main() -> None:
    """Measures; prints and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=pathlib.Path, help="folder of a run of train.wavegru")
    parser.add_argument("--alone", required=True, type=pathlib.Path, help="the same with --model.no-conditional")
    asked = parser.parse_args()
    (run, summary), (_, alone) = opened(asked.run), opened(asked.alone)
    config = run.config
    sounds = load_sounds(config.data, config.mel.rate)
    windows = held_out_windows(sounds, config)
    batch = windows.read(np.arange(windows.size))
    beside = config.model.context * config.mel.hop + config.mel.margin
    assert beside >= PAST + ORDER
    train = np.concatenate([quantised(wave) for wave in sounds.train.waves[:: max(1, len(sounds.train) // 60)]])[:MOST]
    fixed, totals = predictor(expanded(train)), {"fixed": 0.0, "adaptive": 0.0}
    for wave, length in zip(batch["wave"], batch["length"]):
        levels = quantised(wave)
        totals["fixed"] += linear(levels, beside, int(length), fixed)
        totals["adaptive"] += linear(levels, beside, int(length), None)
    count = int(batch["length"].sum())
    bits = {"WaveGRU": summary["eval_bits"], "GRU without a spectrogram": alone["eval_bits"]}
    bits |= {f"linear prediction, {name}": total / math.log(2) / count for name, total in totals.items()}
    chosen = spread(windows, config.eval_sounds)
    shown = chosen.read(np.arange(chosen.size))
    inner = shown["wave"][:, beside : beside + config.eval_frames * config.mel.hop]
    near = [
        distance(expanded(quantised(x)).astype(np.float32), x / np.float32(32768), int(n), config.mel)
        for x, n in zip(inner, shown["length"])
    ]
    model, wave = run.model(), max(sounds.test.waves, key=len) / np.float32(32768)
    result = {
        "about": {"jax": jax.__version__, "steps": config.steps, "batch": config.batch_size, "samples": count},
        "bits of a held-out sample": bits,
        "mel distance in dB": {
            "WaveGRU": summary["mel_distance"],
            "GRU without a spectrogram": alone.get("mel_distance"),
            "the recordings in 8 bits": float(np.concatenate(near).mean()),
        },
        "seconds of sound a second": {f"{n} at a time": speed(model, wave, config.mel, n) for n in (1, 16)},
    }
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
