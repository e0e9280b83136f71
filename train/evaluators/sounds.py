"""Bits of held-out samples, and the distance of their resynthesis."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.audio import log_mel
from eqxgen.configs import MelConfig
from eqxgen.decoding.waves import drawn
from eqxgen.metrics import Mean

from ..config.evals import BITS, RESYNTHESIS
from .base import Evaluator
from .examples import Examples
from .stream import Stream

DECIBELS = 20 / math.log(10)
"""Of a natural logarithm of a magnitude."""


class Teacher(eqx.Module):
    """Nats of a cut's samples, each given the ones before it, and their number."""

    mel: MelConfig = eqx.field(static=True)

    def __call__(self, model: Any, example: dict[str, Array]) -> tuple[Array, Array]:
        mel, levels = prepared(model, example["wave"], self.mel)
        inside = (jnp.arange(len(levels)) < example["length"]).astype(jnp.float32)
        return inside @ model.losses(mel, levels), jnp.sum(inside)


class Resynthesis(eqx.Module):
    """A waveform that the model draws for a cut's spectrogram."""

    mel: MelConfig = eqx.field(static=True)

    def __call__(self, tree: tuple[Any, PRNGKeyArray], example: dict[str, Array]) -> Array:
        model, key = tree
        mel, _ = prepared(model, example["wave"], self.mel)
        state = jax.tree.map(lambda x: x + 0 * example["index"].astype(x.dtype), model.start())
        return drawn(model, mel, state, jnp.zeros((), jnp.int32), 1.0, jr.fold_in(key, example["index"]))[1]


def prepared(model: Any, wave: Array, config: MelConfig) -> tuple[Array, Array]:
    """Spectrogram, and levels of the inner samples, of a cut in 16 bits."""
    samples = wave.astype(jnp.float32) * (1 / 32768)
    beside = model.context * config.hop + config.margin
    mel = log_mel(samples, config).astype(model.cell.from_input.weight.dtype)
    return mel, model.encode(samples[beside : len(samples) - beside])


def bits(examples: Examples, mel: MelConfig) -> Evaluator:
    """`eval_bits`, -log2 p of each held-out sample given those before it in its window, and `eval_loss`, the same in
    nats.

    Args:
        examples: `wave` and `length` of windows.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        mean = Mean()
        for nats, samples in stream.map(Teacher(mel), eqx.nn.inference_mode(model), examples):
            mean = mean.add(nats, samples)
        (mean,) = stream.total(mean)
        return {"eval_loss": mean.result(), "eval_bits": mean.result() / math.log(2)}

    return Evaluator(BITS, run)


def resynthesis(examples: Examples, mel: MelConfig) -> Evaluator:
    """`mel_distance`, the mean absolute difference in dB of each band of each frame of the drawn waveforms from the
    recordings'.

    Args:
        examples: `wave` and `length` of windows.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        tree, mean, numbers = (model, jr.key(0)), Mean(), np.arange(examples.size)
        waves = stream.gather(Resynthesis(mel), tree, examples)
        found = examples.read(numbers)
        beside = (found["wave"].shape[1] - waves.shape[1]) // 2
        originals = found["wave"][:, beside : beside + waves.shape[1]] / np.float32(32768)
        for wave, original, length in zip(waves, originals, found["length"]):
            mean = mean.update(distance(wave, original, int(length), mel))
        return {"mel_distance": mean.result()}

    return Evaluator(RESYNTHESIS, run)


def distance(wave: np.ndarray, original: np.ndarray, length: int, mel: MelConfig) -> np.ndarray:
    """Absolute differences in dB of the log-mel spectrograms `(frames, mels)` of two waveforms, in the frames that
    begin before `length`; zeros beyond the ends.
    """
    frames = -(-length // mel.hop)
    both = [np.where(np.arange(len(x)) < length, x, 0).astype(np.float32) for x in (wave, original)]
    ours, theirs = (np.asarray(spectrogram(np.pad(x, mel.margin), mel))[:frames] for x in both)
    return DECIBELS * np.abs(ours - theirs)


@eqx.filter_jit
def spectrogram(wave: Float[Array | np.ndarray, " samples"], config: MelConfig) -> Float[Array, "frames mels"]:
    """`eqxgen.audio.log_mel`, compiled."""
    return log_mel(jnp.asarray(wave), config)
