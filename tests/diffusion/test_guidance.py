"""Guidance: its formulas, its evaluations, its bad inputs."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion import grids
from eqxgen.diffusion.guidance import Clipped, apg, autoguidance, cfg, cfg_zero_star, classifier, matching
from eqxgen.diffusion.schedules import VE, Flow
from eqxgen.diffusion.solvers import DDPM, Euler, Heun, sample
from tests.diffusion.mixture import Mixture

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)
T, LABEL = jnp.asarray(0.6), jnp.asarray(2)


def both(schedule, moved=0):
    plain = Mixture(schedule)
    return np.asarray(plain(X, T, LABEL), np.float64), np.asarray(plain(X, T, jnp.asarray(moved)), np.float64)


def noise(x0, t=0.6):
    return (np.asarray(X, np.float64) - (1 - t) * x0) / t


def test_scale_1_is_the_denoiser_and_0_is_the_null_condition():
    good, weak = both(VE())
    np.testing.assert_allclose(cfg(Mixture(VE()), 0, 1.0)(X, T, LABEL), good, atol=1e-6)
    np.testing.assert_allclose(cfg(Mixture(VE()), 0, 0.0)(X, T, LABEL), weak, atol=1e-6)


def test_channels_guides_the_first_as_dit_does():
    good, weak = both(VE())
    want = np.concatenate([(weak + 4 * (good - weak))[..., :3], good[..., 3:]], -1)
    np.testing.assert_allclose(cfg(Mixture(VE()), 0, 4.0, channels=3)(X, T, LABEL), want, atol=2e-6)


def test_rescale_gives_the_noise_the_deviation_of_the_conditional_one():
    """diffusers' rescale_noise_cfg, of the noise."""
    good, weak = both(Flow())
    seen, aim = noise(weak + 5 * (good - weak)), noise(good)
    want = 0.7 * seen * aim.std() / seen.std() + 0.3 * seen
    found = cfg(Mixture(Flow()), 0, 5.0, rescale=0.7)(X, T, LABEL)
    np.testing.assert_allclose(noise(np.asarray(found, np.float64)), want, atol=1e-5)


@pytest.mark.parametrize(("eta", "norm"), [(0.0, 0.0), (0.4, 0.5), (1.0, 0.0)])
def test_apg_takes_the_part_along_the_good_image_out(eta, norm):
    good, weak = both(VE())
    apart = good - weak
    if norm:
        apart = apart * min(1, norm / np.linalg.norm(apart))
    unit = good / np.linalg.norm(good)
    along = (apart * unit).sum() * unit
    want = good + 2 * (apart - along + eta * along)
    np.testing.assert_allclose(apg(Mixture(VE()), 0, 3.0, eta=eta, norm=norm)(X, T, LABEL), want, atol=3e-6)


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_the_momentum_of_apg_is_of_the_first_difference_of_the_step_before(solver):
    plain, x, memory = Mixture(VE()), np.asarray(X), 0.0
    times = [2.0, 1.0, 0.5, 0.0]

    def slope(x, t):
        good, weak = (np.asarray(plain(jnp.asarray(x), jnp.asarray(t), jnp.asarray(i))) for i in (2, 0))
        apart = good - weak - 0.6 * memory
        along = (apart * good).sum() / (good**2).sum() * good
        return (x - good - 2 * (apart - along)) / t, apart

    for t, s in itertools.pairwise(times):
        first, apart = slope(x, t)
        moved = x + (s - t) * first
        second = slope(moved, s)[0] if isinstance(solver, Heun) and s else first
        x, memory = x + (s - t) * (first + second) / 2, apart
    guided = apg(plain, 0, 3.0, momentum=-0.6)
    found = jax.jit(lambda x: sample(guided, x, jnp.asarray(times), solver, condition=LABEL).x)(X)
    np.testing.assert_allclose(found, x, atol=1e-5)
    with pytest.raises(ValueError, match="momentum must be None: what calls the denoiser has no memory"):
        guided(X, T, LABEL)


def test_cfg_zero_star_projects_the_weak_velocity_and_may_begin_with_none():
    good, weak = both(Flow())
    v, u = (noise(x0) - x0 for x0 in (good, weak))
    best = (v * u).sum() / ((u**2).sum() + 1e-8)
    want = np.asarray(X, np.float64) - 0.6 * (best * u + 3 * (v - best * u))
    np.testing.assert_allclose(cfg_zero_star(Mixture(Flow()), 0, 3.0)(X, T, LABEL), want, atol=5e-6)
    still = cfg_zero_star(Mixture(Flow()), 0, 3.0, start=0.5)(X, T, LABEL)
    np.testing.assert_allclose(still, X, atol=1e-6)


def test_autoguidance_leads_away_from_the_weaker_denoiser_without_a_condition_too():
    strong, weaker = Mixture(VE()), Clipped(Mixture(VE()), 0.3)
    a, b = np.asarray(strong(X, T)), np.asarray(weaker(X, T))
    np.testing.assert_allclose(autoguidance(strong, weaker, 2.5)(X, T), b + 2.5 * (a - b), atol=2e-6)


def test_a_classifier_of_noised_images_gives_the_conditional_denoiser():
    """Exact for a mixture: log p(component k | x_t) turns the mixture's denoiser into the component's."""
    from tests.diffusion.mixture import DEVIATIONS, MEANS, WEIGHTS

    def log_probability(x, t, k):
        total = jnp.asarray(DEVIATIONS**2, x.dtype) + t**2
        off = x[..., None] - jnp.asarray(MEANS, x.dtype).reshape(1, 1, 1, 3)
        shape = lambda row: jnp.asarray(row, x.dtype).reshape(1, 1, 1, 3)
        log = shape(jnp.log(jnp.asarray(WEIGHTS, x.dtype)) - jnp.log(total) / 2) - off**2 / (2 * shape(total))
        return jnp.sum(jax.nn.log_softmax(log)[..., k])

    found = classifier(Mixture(VE()), log_probability, 1.0)(X, T, jnp.asarray(2))
    share = DEVIATIONS[2] ** 2 / (DEVIATIONS[2] ** 2 + 0.36)
    np.testing.assert_allclose(found, MEANS[2] + share * (np.asarray(X) - MEANS[2]), atol=2e-5)


def test_a_matching_model_moves_the_image_toward_the_target():
    score = lambda x0, target: -jnp.sum(jnp.square(jnp.mean(x0) - target))
    times = grids.times(VE(), grids.karras(12))
    means = [
        float(jnp.mean(sample(matching(Mixture(VE()), score, 0.8, scale, through=through), 80 * X, times, Heun()).x))
        for scale, through in ((0.0, True), (60.0, True), (60.0, False))
    ]
    assert means[0] + 0.1 < means[1]
    assert means[0] + 0.1 < means[2]


def test_outside_its_interval_guidance_costs_nothing_even_in_a_batch():
    """Counted by calls of the network: the branch on the time stays one when images are mapped and times are not."""
    seen = []
    guided = cfg(Mixture(VE(), called=lambda t: seen.append(float(t))), 0, 3.0, interval=(0.3, 5.0))
    times = jnp.asarray([20.0, 8.0, 3.0, 1.0, 0.1, 0.0])
    found = jax.jit(jax.vmap(lambda x: sample(guided, x, times, Euler(), condition=LABEL)[:2]))(jnp.stack([X, 2 * X]))
    jax.effects_barrier()
    assert found[1].tolist() == [7, 7]
    assert len(seen) == 14
    assert sorted({round(t, 3) for t in seen if seen.count(t) == 4}) == [1.0, 3.0]


def test_guided_denoisers_compose_and_count_their_evaluations():
    seen = []
    inner = Mixture(VE(), called=lambda t: seen.append(float(t)))
    guided = Clipped(cfg(autoguidance(inner, inner, 1.5, interval=(0.2, 50.0)), 0, 2.0), 1.0, 0.95)
    found = sample(guided, 30 * X, jnp.asarray([30.0, 1.0, 0.1, 0.0]), Heun(), condition=LABEL)
    jax.effects_barrier()
    assert int(found.evaluations) == len(seen) == 16
    assert np.isfinite(found.x).all()
    assert jnp.abs(found.x).max() <= 1


class Learned(Mixture):
    def variance(self, x, t, condition=None, *, key=None, inference=None):
        return self(x, t, condition), jnp.full_like(x, 0.3)


def test_guidance_keeps_a_learned_variance():
    guided = cfg(Learned(Flow()), 0, 3.0, interval=(0.1, 9.0))
    x0, fraction = guided.variance(X, T, LABEL)
    np.testing.assert_allclose(x0, guided(X, T, LABEL), atol=1e-6)
    assert (fraction == jnp.float32(0.3)).all()
    found = sample(guided, X, jnp.asarray([1.0, 0.5, 0.0]), DDPM("learned"), key=jr.key(0), condition=LABEL)
    assert np.isfinite(found.x).all()


BAD = {
    "guidance needs a conditional model": lambda: cfg(Mixture(VE()), None, 2.0),
    "condition must be given": lambda: cfg(Mixture(VE()), 0, 2.0)(X, T),
    "interval must rise": lambda: cfg(Mixture(VE()), 0, 2.0, interval=(5.0, 0.3)),
    "scale must be in": lambda: cfg(Mixture(VE()), 0, -1.0),
    "rescale must be in": lambda: cfg(Mixture(VE()), 0, 2.0, rescale=1.5),
    "channels must be at least 1": lambda: cfg(Mixture(VE()), 0, 2.0, channels=0),
    "weak must have the denoiser's schedule": lambda: autoguidance(Mixture(VE()), Mixture(Flow()), 2.0),
    "quantile must be in": lambda: Clipped(Mixture(VE()), 1.0, 1.5),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_guidance_is_one_line(message):
    with pytest.raises(ValueError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
