"""WaveGRU: alignment of spectrogram and samples, teacher forcing, the dual head's mask, sampling in parts."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.audio import QUIET
from eqxgen.configs import WaveGRUConfig
from eqxgen.decoding import waves
from eqxgen.losses.waves import LOG_SCALE, dual_cross_entropy, logistics_loss
from eqxgen.models import WaveGRU
from tests.arrays import drawn, filled, integers

HEADS = ("mu_law", "dual", "logistics")
SIZES = WaveGRUConfig(dim=12, width=8, hidden=10, mixtures=2, dilations=(1, 2), upsample=(2, 3))
MELS, HOP, FRAMES = 5, 12, 4
KEY = jax.random.key(3)


def made(head, **changes):
    config = dataclasses.replace(SIZES, head=head, **changes)
    return filled(lambda key: WaveGRU(MELS, HOP, config, key=key))


def given(model, frames=FRAMES):
    mel = drawn((frames + 2 * model.context, MELS))
    return mel, integers((frames * HOP,), model.levels)


@pytest.fixture(scope="module", params=HEADS)
def model(request):
    return made(request.param)


def test_a_frame_reaches_its_own_samples_and_those_of_its_context_alone(model):
    frames = 9
    mel, _ = given(model, frames)
    run = jax.jit(lambda mel: model.conditioning(mel))
    before = np.asarray(run(mel))
    after = np.asarray(run(mel.at[model.context + 4].add(1.0)))
    changed = np.flatnonzero((before != after).any(axis=1))
    first, last = 4 - model.context, 4 + model.context
    assert changed.min() == first * HOP
    assert changed.max() == (last + 1) * HOP - 1


def test_an_output_is_of_the_samples_before_it_alone(model):
    mel, levels = given(model)
    run = jax.jit(lambda mel, levels: model(mel, levels))
    before, at = np.asarray(run(mel, levels)), 20
    other = np.asarray(run(mel, levels.at[at].set((levels[at] + model.levels // 3) % model.levels)))
    same = (before == other).all(axis=1)
    if model.config.head == "dual":
        # The fine byte sees the coarse one of its own sample.
        assert (before[at, :256] == other[at, :256]).all()
        assert (before[at, 256:] != other[at, 256:]).any()
        fine = np.asarray(run(mel, levels.at[at].set(levels[at] ^ 1)))
        np.testing.assert_array_equal(fine[at], before[at])
        assert same[:at].all()
    else:
        assert same[: at + 1].all()
    assert not same[at + 1]


def test_drawn_samples_are_those_of_teacher_forcing(model):
    mel, _ = given(model)
    cold = jax.jit(lambda mel: waves.drawn(model, mel, model.start(), jnp.zeros((), jnp.int32), 1e-6, KEY))
    state, wave = cold(mel)
    levels = model.encode(wave)
    outputs = np.asarray(jax.jit(lambda mel, levels: model(mel, levels))(mel, levels))
    if model.config.head == "mu_law":
        expected = outputs.argmax(axis=1)
    elif model.config.head == "dual":
        expected = outputs[:, :256].argmax(axis=1) * 256 + outputs[:, 256:].argmax(axis=1)
    else:
        shares, means, _ = np.split(outputs, 3, axis=1)
        chosen = np.take_along_axis(means, shares.argmax(axis=1)[:, None], axis=1)[:, 0]
        expected = np.asarray(model.encode(jnp.asarray(chosen)))
    assert np.abs(np.asarray(levels) - expected).max() <= (model.config.head == "logistics")
    assert int(state.past) == int(levels[-1])


def test_parts_of_any_size_give_the_same_waveform_and_compile_nothing_new():
    model, mels = made("mu_law"), np.asarray(drawn((2, 7, MELS)))
    whole = waves.generate(model, mels, chunk=3, key=KEY)
    assert whole.shape == (2, 7 * HOP)
    parts = [*waves.stream(model, mels, chunk=3, key=KEY)]
    assert [part.shape[1] for part in parts] == [3 * HOP, 3 * HOP, HOP]
    np.testing.assert_array_equal(whole, waves.generate(model, mels, chunk=5, key=KEY))
    programs = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: programs.append(event) if "backend_compile" in event else None
    )
    try:
        shorter = waves.generate(model, mels[:, :4], chunk=3, temperature=0.5, key=KEY)
        waves.generate(model, mels[:, :2], chunk=3, key=KEY)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not programs
    assert shorter.shape == (2, 4 * HOP)
    assert not np.array_equal(whole[0], whole[1])
    # Silence beyond the ends: what follows a spectrogram is in its last frames' context.
    padded = np.concatenate([mels, np.full((2, 2, MELS), np.log(QUIET), np.float32)], axis=1)
    np.testing.assert_array_equal(whole, waves.generate(model, padded, chunk=3, key=KEY)[:, : 7 * HOP])


def test_the_recurrent_state_is_float32_in_half_precision():
    half = lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x
    model = jax.tree.map(half, made("mu_law"))
    mel = given(model)[0].astype(jnp.bfloat16)
    state, wave = waves.drawn(model, mel, model.start(), jnp.zeros((), jnp.int32), 1.0, KEY)
    assert state.output.dtype == jnp.float32
    assert wave.shape == (FRAMES * HOP,)
    assert model(mel, model.encode(wave)).dtype == jnp.float32


def test_without_a_condition_the_spectrogram_is_not_read():
    model = made("mu_law", conditional=False)
    mel, levels = given(model)
    assert not jax.tree.leaves((model.convs, model.ups))
    np.testing.assert_array_equal(model(mel, levels), model(mel + 1.0, levels))


def test_the_levels_of_a_mixture_have_the_mass_of_one_together():
    levels = 16
    parts = 2.0 * drawn((3, 9), 1)
    parts = parts.at[0, 6:].set(-50.0)  # below the least scale
    mass = lambda parts: np.exp(
        -np.asarray(logistics_loss(jnp.repeat(parts[None], levels, 0), jnp.arange(levels), levels))
    )
    for row in parts:
        np.testing.assert_allclose(mass(row).sum(), 1.0, rtol=1e-5)
    # A step's mass is its integral, the outer ones' all beyond it.
    shares, means, scales = np.split(np.asarray(parts[1], np.float64), 3)
    shares, scales = np.exp(shares) / np.exp(shares).sum(), np.exp(np.maximum(scales, LOG_SCALE))
    edges = np.concatenate([[-np.inf], np.arange(1, levels) * 2 / 15 - 1 - 1 / 15, [np.inf]])
    cdf = 1 / (1 + np.exp(-(edges[:, None] - means[None]) / scales[None]))
    np.testing.assert_allclose(mass(parts[1]), np.diff(cdf, axis=0) @ shares, rtol=1e-4)


def test_losses_of_far_samples_have_finite_gradients():
    codes = jnp.asarray([0, 65535, 40000])
    parts = jnp.asarray([[0.0, 1.0, 0.9, -0.9, -9.0, -7.0]] * 3)
    loss, slope = jax.value_and_grad(lambda parts: jnp.sum(logistics_loss(parts, codes)))(parts)
    assert np.isfinite(loss)
    assert np.isfinite(slope).all()


def test_two_softmaxes_are_of_the_coarse_and_the_fine_byte():
    logits, codes = drawn((4, 512)), jnp.asarray([0, 255, 256, 65535])
    p = np.asarray(jax.nn.log_softmax(logits.reshape(4, 2, 256), axis=-1))
    expected = [-p[row, 0, code // 256] - p[row, 1, code % 256] for row, code in enumerate(codes.tolist())]
    np.testing.assert_allclose(dual_cross_entropy(logits, codes), expected, rtol=1e-5)


def test_a_wrong_argument_is_named():
    model = made("mu_law")
    mel, levels = given(model)
    stream = lambda mels, **options: waves.stream(model, mels, key=KEY, **options)
    for call, says in (
        (
            lambda: model(mel, levels[1:]),
            "levels must have hop=12 samples for each of the 4 inner frames of mel: got 47",
        ),
        (lambda: model.conditioning(mel[:6]), "mel must have more than twice context=3 frames: got 6"),
        (lambda: stream(np.zeros((1, 4, 6), np.float32)), r"mels must be \(n, frames, mels=5\)"),
        (lambda: stream(np.zeros((1, 4, 5), np.float32), chunk=0), "chunk must be at least 1 frame: got 0"),
        (lambda: stream(np.zeros((1, 4, 5), np.float32), temperature=0.0), "temperature must be positive and finite"),
        (
            lambda: WaveGRU(5, 10, SIZES, key=KEY),
            r"model.upsample must have factors whose product divides the hop of 10",
        ),
        (lambda: WaveGRUConfig(head="gaussian"), "model.head must be one of mu_law, dual, logistics: got .gaussian"),
        (lambda: WaveGRUConfig(dim=5, head="dual"), "model.dim must be even with model.head=dual"),
        (lambda: WaveGRUConfig(dilations=()), "model.dilations must be one or more integers of at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
