"""Samples of sound from a `WaveGRU`, one by one in a scan, a chunk of frames at a time."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from eqxgen.audio import QUIET
from eqxgen.models.wavegru import WaveGRU, WaveState


def stream(
    model: WaveGRU,
    mels: Float[np.ndarray | Array, "n frames bands"],
    *,
    chunk: int = 16,
    temperature: float = 1.0,
    key: PRNGKeyArray,
) -> Iterator[Float32[np.ndarray, "n samples"]]:
    """Waveforms of spectrograms, `chunk` frames at a time; the last part is as short as what is left.

    One compiled program makes every part, of spectrograms of any length. A sample is a function of the model, the
    spectrogram, the key, the row and its number: other chunks give the same waveform. The recurrent state is float32.

    Args:
        mels: of frames (`eqxgen.audio.log_mel`), without context: beyond the ends is silence.
        chunk: frames at a time.
        temperature: divides logits, and multiplies the scales of a mixture.
        key: of all draws.

    Raises:
        ValueError: an argument is out of its range, or the bands are not the model's.
        FloatingPointError: the outputs are NaN.
    """
    mels = np.asarray(mels)
    if mels.ndim != 3 or mels.shape[2] != model.mels or 0 in mels.shape:
        raise ValueError(f"mels must be (n, frames, mels={model.mels}), none of them 0: got shape {mels.shape}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 frame: got {chunk}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite: got {temperature}")
    return _stream(model, mels, chunk, temperature, key)


def _stream(
    model: WaveGRU, mels: np.ndarray, chunk: int, temperature: float, key: PRNGKeyArray
) -> Iterator[np.ndarray]:
    count, frames, _ = mels.shape
    context, short = model.context, -frames % chunk
    ends = ((0, 0), (context, context + short), (0, 0))
    mels = np.pad(mels, ends, constant_values=np.log(QUIET))
    keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(count))
    states = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (count, *x.shape)), model.start())
    for start in range(0, frames, chunk):
        part = mels[:, start : start + chunk + 2 * context]
        states, waves, finite = _part((model, keys, np.int32(start * model.hop), np.float32(temperature), part), states)
        if not bool(finite):
            raise FloatingPointError("the model's samples are not numbers")
        yield np.asarray(waves)[:, : (min(chunk, frames - start)) * model.hop]


def generate(
    model: WaveGRU,
    mels: Float[np.ndarray | Array, "n frames bands"],
    *,
    chunk: int = 16,
    temperature: float = 1.0,
    key: PRNGKeyArray,
) -> Float32[np.ndarray, "n samples"]:
    """The parts of `stream` together."""
    return np.concatenate([*stream(model, mels, chunk=chunk, temperature=temperature, key=key)], axis=1)


def drawn(
    model: WaveGRU,
    mel: Float[Array, "padded_frames mels"],
    state: WaveState,
    start: Int[Array, ""],
    temperature: Float[Array, ""] | float,
    key: PRNGKeyArray,
) -> tuple[WaveState, Float[Array, " samples"]]:
    """The state after a part of a waveform, and its samples in [-1, 1]: one scan, without `jax.jit`.

    Args:
        mel: of the part, with the model's context on either side.
        state: before it.
        start: number of its first sample.
        temperature: as in `stream`.
        key: of the whole waveform.
    """
    conditioning = model.conditioning(mel)

    def step(state: WaveState, given: tuple[Array, Array]) -> tuple[WaveState, Array]:
        features, number = given
        state = model.step(features, state, temperature, key=jr.fold_in(key, number))
        return state, state.past

    numbers = start + jnp.arange(len(conditioning))
    state, levels = jax.lax.scan(step, state, (conditioning, numbers))
    return state, model.decode(levels)


@eqx.filter_jit(donate="all-except-first")
def _part(given: tuple[Any, ...], states: WaveState) -> tuple[WaveState, Array, Array]:
    model, keys, start, temperature, mels = given
    run = lambda mel, state, key: drawn(model, mel, state, start, temperature, key)
    states, waves = jax.vmap(run)(mels, states, keys)
    return states, waves, jnp.isfinite(states.output).all()
