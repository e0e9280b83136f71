"""Averages of the weights against what their definitions say."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from train.config.optim import EmaConfig
from train.optim.ema import averages, gamma_of, overlap, power, reconstruct, sigma_of, weights_for

STEPS = 40


def run(config, batch_size=8, steps=STEPS, keep=()):
    """The averages of weights that change at random, and the weights; with those of the steps to keep."""
    weights = np.random.default_rng(0).normal(size=(steps + 1, 3))
    ema = averages(config, batch_size)
    state, kept = ema.init({"w": jnp.asarray(weights[0], jnp.float32)}), {}
    for step in range(steps):
        state = ema.update(state, {"w": jnp.asarray(weights[step + 1], jnp.float32)}, jnp.int32(step))
        if step + 1 in keep:
            kept[step + 1] = state
    return state, weights, kept


def test_a_decay_ramps_up_from_a_tenth():
    (state,), weights, _ = run(EmaConfig(decay=0.6))
    expected = weights[0]
    for step in range(STEPS):
        kept = min(0.6, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weights[step + 1]
    np.testing.assert_allclose(state["w"], expected, atol=1e-6)


def test_a_half_life_halves_after_as_many_examples():
    ema = averages(EmaConfig(half_life=80.0, ramp=0.0), batch_size=8)
    state = ema.init(jnp.ones(()))
    for step in range(10):
        state = ema.update(state, jnp.zeros(()), jnp.int32(step))
    assert float(state[0]) == pytest.approx(0.5)


def test_a_half_life_ramps_up_with_the_examples_so_far():
    (state,), weights, _ = run(EmaConfig(half_life=100.0, ramp=0.5))
    expected = weights[0]
    for step in range(STEPS):
        life = min(100, 0.5 * 8 * step)
        kept = 0.5 ** (8 / life) if life else 0.0
        expected = kept * expected + (1 - kept) * weights[step + 1]
    np.testing.assert_allclose(state["w"], expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.25])
def test_a_power_profile_has_the_width_that_its_name_says(sigma):
    gamma = gamma_of(sigma)
    assert sigma_of(gamma) == pytest.approx(sigma)
    t = (np.arange(200_000) + 0.5) / 200_000
    profile = (gamma + 1) * t**gamma
    mean = np.mean(profile * t)
    assert np.sqrt(np.mean(profile * (t - mean) ** 2)) == pytest.approx(sigma, rel=1e-4)


def test_known_widths_have_the_exponents_of_the_paper():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.01)


def test_a_power_average_weighs_each_step_by_its_profile():
    (state,), weights, _ = run(EmaConfig(sigma_rel=(0.2,)))
    gamma = gamma_of(0.2)
    t = np.arange(1, STEPS + 1)
    exact = np.array(
        [np.prod((1 - 1 / t[i:][1:]) ** (gamma + 1)) * (1 - (1 - 1 / t[i]) ** (gamma + 1)) for i in range(STEPS)]
    )
    assert exact.sum() == pytest.approx(1)
    np.testing.assert_allclose(state["w"], exact @ weights[1:], atol=1e-5)
    continuous = (t / STEPS) ** (gamma + 1) - ((t - 1) / STEPS) ** (gamma + 1)
    np.testing.assert_allclose(exact, continuous, atol=1e-7)


@pytest.mark.parametrize("step", [0, 9, 999_999, 10_000_000])
def test_a_long_run_averages_as_exactly_as_a_short_one(step):
    # 1 - beta taken from a beta in float32 would be off by per cents after a million steps.
    gamma, found = gamma_of(0.1), float(power(gamma_of(0.1))(jnp.int32(step)))
    exact = 1.0 if step == 0 else -math.expm1((gamma + 1) * math.log1p(-1 / (step + 1)))
    assert found == pytest.approx(exact, rel=1e-5)


def test_several_widths_are_kept_side_by_side():
    both, _, _ = run(EmaConfig(sigma_rel=(0.05, 0.1)))
    for state, sigma in zip(both, (0.05, 0.1)):
        np.testing.assert_allclose(state["w"], run(EmaConfig(sigma_rel=(sigma,)))[0][0]["w"], atol=1e-7)


def test_the_overlap_of_two_profiles_is_the_integral_of_their_product():
    for (t, g), (u, h) in [((10, 5.0), (7, 16.0)), ((4, 2.0), (9, 6.0)), ((3, 1.0), (3, 8.0))]:
        s = (np.arange(400_000) + 0.5) / 400_000 * min(t, u)
        product = (g + 1) * s**g / t ** (g + 1) * (h + 1) * s**h / u ** (h + 1)
        assert overlap(t, g, u, h) == pytest.approx(np.mean(product) * min(t, u), rel=1e-6)
        assert overlap(t, g, u, h) == overlap(u, h, t, g)


def test_weights_are_the_least_squares_of_the_profiles():
    kept = [(t, gamma_of(s)) for t in (10, 20, 30, 40) for s in (0.05, 0.1)]
    gamma = gamma_of(0.15)
    s = (np.arange(4000) + 0.5) / 4000 * 40
    profile = lambda t, g: np.where(s <= t, (g + 1) * (s / t) ** g / t, 0)
    columns = np.stack([profile(*pair) for pair in kept], axis=1)
    solved = np.linalg.lstsq(columns, profile(40, gamma), rcond=None)[0]
    np.testing.assert_allclose(weights_for(kept, 40, gamma), solved, atol=2e-3)


def test_a_reconstructed_average_is_near_to_the_one_that_was_never_kept():
    sigmas, steps = (0.05, 0.1), 320
    every = tuple(range(20, steps + 1, 20))
    _, _, kept = run(EmaConfig(sigma_rel=sigmas), steps=steps, keep=every)
    models = [state[i] for state in kept.values() for i in range(2)]
    pairs = [(step, sigma) for step in kept for sigma in sigmas]
    wanted = run(EmaConfig(sigma_rel=(0.07,)), steps=steps)[0][0]["w"]
    np.testing.assert_allclose(reconstruct(models, pairs, steps, 0.07)["w"], wanted, atol=0.01)
    assert np.abs(models[-1]["w"] - wanted).max() > 0.02
    exact = reconstruct(models, pairs, steps, 0.1)["w"]
    np.testing.assert_allclose(exact, models[-1]["w"], atol=1e-4)


def test_a_width_that_no_profile_has_is_an_error():
    for sigma in (0.0, 0.3):
        with pytest.raises(ValueError, match="sigma_rel must be in"):
            gamma_of(sigma)
    with pytest.raises(ValueError, match="exclude each other"):
        EmaConfig(half_life=1.0, sigma_rel=(0.1,))
