"""Losses, weights, distances, times and variances beside their definitions in float64."""

import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import DenoiserConfig, DiffusionLoss, ScheduleConfig
from eqxgen.configs.diffusion import DISTANCES, TIMES, WEIGHTS
from eqxgen.diffusion.losses import denoising_loss, dropped, weighted_distance
from eqxgen.diffusion.precondition import Denoised, denoiser_of
from eqxgen.diffusion.schedules import Level, schedule_of
from eqxgen.diffusion.times import time_of_uniform, uniforms
from eqxgen.diffusion.uncertainty import LogVariance
from eqxgen.diffusion.variance import bits_per_dimension, variational_bound
from eqxgen.diffusion.weighting import weight_of

OWN = {
    "simple": ("epsilon", "linear", 0.4),
    "x0": ("x0", "cosine", 0.4),
    "v": ("v", "cosine", 0.4),
    "v of a flow": ("velocity", "flow", 0.4),
    "edm": ("edm", "edm", 2.5),
}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, *shape)), jnp.float32)


@pytest.mark.parametrize("name", OWN)
def test_a_weight_makes_the_loss_of_x0_the_squared_error_of_a_prediction_and_its_gradient(name):
    prediction, schedule, t = OWN[name]
    x0, noise, answer = normal(0, 4, 3)
    config = DenoiserConfig(prediction=prediction, schedule=ScheduleConfig(name=schedule, steps=10))
    level = schedule_of(config.schedule)(t)
    a, s = (np.float64(part) for part in level)
    x0_, noise_, x = np.float64(x0), np.float64(noise), a * np.float64(x0) + s * np.float64(noise)
    target = {
        "epsilon": noise_,
        "x0": x0_,
        "v": a * noise_ - s * x0_,
        "velocity": noise_ - x0_,
        "edm": (x0_ - 0.25 / (s**2 + 0.25) * x) / (s * 0.5 / np.sqrt(s**2 + 0.25)),
    }[prediction]

    def loss(answer):
        denoiser = denoiser_of(config, lambda *_, **__: answer)
        rules = DiffusionLoss(weight=name.split()[0])
        return denoising_loss(denoiser, x0, jnp.float32(t), noise=noise, rules=rules).loss

    value, gradient = jax.value_and_grad(loss)(answer)
    gap = np.float64(answer) - target
    np.testing.assert_allclose(value, np.mean(gap**2), rtol=1e-5)
    np.testing.assert_allclose(gradient, 2 * gap / gap.size, rtol=1e-5, atol=1e-6)


DEFINED = {
    "x0": lambda snr, s: 1.0 + 0 * snr,
    "simple": lambda snr, s: snr,
    "snr": lambda snr, s: snr,
    "truncated_snr": lambda snr, s: np.maximum(snr, 1),
    "min_snr": lambda snr, s: np.minimum(snr, 5),
    "soft_min_snr": lambda snr, s: 1 / (1 / snr + 1 / 5),
    "p2": lambda snr, s: snr * (1 + snr) ** -5.0,
    "edm": lambda snr, s: (1 / snr + 0.36) / (0.36 / snr),
    "v": lambda snr, s: np.maximum(s, 0.05) ** -2.0,
    "uncertainty": lambda snr, s: (1 / snr + 0.36) / (0.36 / snr),
}


def test_weights_are_their_definitions():
    assert DEFINED.keys() == set(WEIGHTS)
    level = schedule_of(ScheduleConfig())(np.linspace(0.001, 1, 23))
    a, s = (np.float64(part) for part in level)
    for name, defined in DEFINED.items():
        found = weight_of(DiffusionLoss(weight=name), 0.6)(level)
        np.testing.assert_allclose(found, defined((a / s) ** 2, s), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_with_the_weight_snr_is_that_of_the_noise(name):
    level, error = Level(jnp.float32(0.8), jnp.float32(0.6)), normal(1, 50)[0]
    e = np.float64(error) * 0.8 / 0.6
    defined = {
        "l2": e**2,
        "l1": np.abs(e),
        "huber": np.where(np.abs(e) < 0.7, e**2 / 2, 0.7 * (np.abs(e) - 0.35)),
        "pseudo_huber": np.sqrt(e**2 + 0.49) - 0.7,
    }
    found = weighted_distance(error, level, DiffusionLoss(weight="snr", distance=name, delta=0.7))
    np.testing.assert_allclose(found, np.mean(defined[name]), rtol=1e-5)


def test_the_learned_uncertainty_is_best_where_it_is_the_logarithm_of_the_weighted_error():
    x0, noise, answer = normal(2, 6)
    denoiser = denoiser_of(
        DenoiserConfig(prediction="edm", schedule=ScheduleConfig(name="edm")), lambda *_, **__: answer
    )
    t, rules = jnp.float32(1.7), DiffusionLoss(weight="uncertainty")
    head = LogVariance(16)
    loss = lambda head: denoising_loss(denoiser, x0, t, noise=noise, rules=rules, uncertainty=head).loss
    plain = denoising_loss(denoiser, x0, t, noise=noise, rules=DiffusionLoss(weight="edm")).loss
    assert float(head(denoiser.schedule(t))) == 0
    assert float(loss(head)) == float(plain)
    for _ in range(60):
        head = jax.tree.map(lambda w, g: w - 0.5 * g, head, jax.grad(loss)(head))
    assert float(head(denoiser.schedule(t))) == pytest.approx(math.log(plain), abs=1e-3)


def test_dropout_of_labels_gives_the_null_label_at_its_rate():
    labels = jax.vmap(lambda key: dropped(jnp.int32(3), 10, 0.2, key=key))(jr.split(jr.key(0), 2000))
    assert set(np.asarray(labels).tolist()) == {3, 10}
    assert np.mean(np.asarray(labels) == 10) == pytest.approx(0.2, abs=0.03)


def quantiles(name, u):
    """Times of a flow, of sigma itself, and of 10 steps."""
    z = np.asarray([NormalDist().inv_cdf(p) for p in u])
    if name == "uniform":
        return u, np.exp(np.log(0.002) + u * np.log(80 / 0.002)), (np.floor(10 * u) + 1) / 10
    if name == "lognormal":
        ratio = np.exp(-1.2 + 1.2 * z)
    elif name == "logit_normal":
        return 1 / (1 + np.exp(1.2 - 1.2 * z)), 80 / (1 + np.exp(1.2 - 1.2 * z)), None
    else:
        parts = []
        for noise in (32, 64):
            shift = 2 * np.log(noise / 28)
            low, high = -2 * np.log(1000) - shift, 2 * np.log(1000) - shift
            first, last = np.arctan(np.exp(-high / 2)), np.arctan(np.exp(-low / 2))
            parts.append(-2 * np.log(np.tan(first + u * (last - first))) + shift)
        ratio = 0.5 * np.exp(-(parts[0] * (1 - u) + parts[1] * u) / 2)
    return ratio / (1 + ratio), ratio, None


@pytest.mark.parametrize("name", TIMES)
def test_times_have_the_quantiles_of_their_distribution(name):
    u = (np.arange(19) + 0.5) / 19
    for wanted, schedule in zip(quantiles(name, u), ("flow", "edm", "linear")):
        if wanted is not None:
            schedule = schedule_of(ScheduleConfig(name=schedule, steps=10))
            found = time_of_uniform(schedule, jnp.asarray(u, jnp.float32), DiffusionLoss(times=name), side=28)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_stratified_times_have_one_in_each_part_of_the_distribution():
    u = np.asarray(uniforms(jr.split(jr.key(0), 40), stratified=True))
    assert (np.floor(u * 40) == np.arange(40)).all()
    assert len(np.unique(np.round(u * 40 % 1, 4))) > 35
    alone = np.asarray(uniforms(jr.split(jr.key(0), 40)))
    assert ((alone > 0) & (alone < 1)).all()
    assert len(np.unique(np.floor(alone * 40))) < 40
    places = jnp.arange(40)
    parts = [
        uniforms(jr.split(jr.key(0), 40)[half], True, places=places[half], size=40)
        for half in (slice(15), slice(15, 40))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), u)  # a device's part, or a micro-batch, is that of the whole


def reference_bound(betas, step, x0, x, mean, fraction, levels):
    """The bound of a step in bits per dimension, in float64, by the formulas of the papers."""
    level = np.cumprod(1 - betas)
    before = np.append(1.0, level[:-1])
    posterior = betas * (1 - before) / (1 - level)
    posterior[0] = posterior[1]
    b, v, ab, s = betas[step], posterior[step], level[step], before[step]
    move = lambda x0: (np.sqrt(s) * b * x0 + np.sqrt(1 - b) * (1 - s) * x) / (1 - ab)
    variance = np.exp(fraction * np.log(b) + (1 - fraction) * np.log(v))
    if step:
        gap = (move(x0) - move(mean)) ** 2
        return np.mean(np.log(variance / v) / 2 + (v + gap) / (2 * variance) - 0.5) / np.log(2)
    cdf = lambda y: 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    z = lambda side: cdf((x0 - move(mean) + side / (levels - 1)) / np.sqrt(variance))
    upper, lower = np.where(x0 > 0.999, 1, z(1)), np.where(x0 < -0.999, 0, z(-1))
    return -np.mean(np.log(np.maximum(upper - lower, 1e-12))) / np.log(2)


def gray(seed, levels, *shape):
    return np.random.default_rng(seed).integers(0, levels, shape) / (levels - 1) * 2 - 1


@pytest.mark.parametrize("step", [0, 1, 5, 9])
def test_the_bound_of_a_learned_variance_is_its_definition_and_leaves_the_mean_alone(step):
    schedule = schedule_of(ScheduleConfig(steps=10, low=0.01, high=0.4))
    x0, (noise, gap, _) = gray(0, 17, 6, 2), np.random.default_rng(1).normal(size=(3, 6, 2))
    level = schedule((step + 1) / 10)
    x, fraction = float(level.alpha) * x0 + float(level.sigma) * noise, np.linspace(0, 1, 12).reshape(6, 2)
    arrays = [jnp.asarray(array, jnp.float32) for array in (x0 + 0.1 * gap, fraction, x0, x)]

    def bound(mean, fraction, x0, x):
        return variational_bound(schedule, Denoised(mean, fraction), x0, x, jnp.float32((step + 1) / 10), levels=17)

    wanted = reference_bound(np.asarray(schedule.betas), step, x0, x, x0 + 0.1 * gap, fraction, 17)
    np.testing.assert_allclose(bound(*arrays), 10 * wanted, rtol=2e-5)
    of_mean, of_fraction = jax.grad(bound, (0, 1))(*arrays)
    assert not np.any(of_mean)
    assert np.any(of_fraction)


@pytest.mark.parametrize("variance", ["learned", "least", "most"])
def test_bits_per_dimension_are_the_sum_of_the_bounds_of_all_steps(variance):
    config = DenoiserConfig(schedule=ScheduleConfig(steps=7, low=0.01, high=0.6))
    net = lambda x, level, label, **_: jnp.concatenate([0.5 * x, 0.2 * jnp.cos(x)], axis=-1)
    x0 = gray(3, 256, 4, 4, 1)
    denoiser = denoiser_of(config, net)
    found = bits_per_dimension(denoiser, jnp.asarray(x0, jnp.float32), variance=variance, key=jr.key(0))
    betas, total = np.asarray(denoiser.schedule.betas), 0
    for step in range(7):
        a, s = (np.float64(part) for part in denoiser.schedule((step + 1) / 7))
        x = a * x0 + s * np.float64(jr.normal(jr.fold_in(jr.key(0), step), x0.shape))
        mean = np.clip((x - s * 0.5 * x) / a, -1, 1)
        fraction = {"learned": (0.2 * np.cos(x) + 1) / 2, "least": 0, "most": 1}[variance]
        total += reference_bound(betas.copy(), step, x0, x, mean, fraction, 256)
    level = np.prod(1 - betas)
    prior = np.mean(-0.5 - np.log(1 - level) / 2 + (1 - level + level * x0**2) / 2) / np.log(2)
    np.testing.assert_allclose(found.prior, prior, rtol=1e-4)
    np.testing.assert_allclose(found.total, total + prior, rtol=1e-4)


def test_the_hybrid_loss_adds_the_bound_times_its_weight():
    config = DenoiserConfig(schedule=ScheduleConfig(steps=10))
    denoiser = denoiser_of(config, lambda x, *_, **__: jnp.concatenate([0.3 * x, 0.1 * x], axis=-1))
    x0, noise, _ = normal(4, 3, 3, 2)
    found, plain = (
        denoising_loss(denoiser, x0, jnp.float32(0.5), noise=noise, rules=DiffusionLoss(variance=weight))
        for weight in (0.001, 0.0)
    )
    assert float(plain.bound) == 0
    assert float(found.bound) > 0
    assert float(found.loss) == pytest.approx(float(plain.loss) + 0.001 * float(found.bound), rel=1e-6)


FLOW = DenoiserConfig(prediction="velocity", schedule=ScheduleConfig(name="flow"))
BAD = {
    "uncertainty must be given with loss.weight uncertainty": lambda: denoising_loss(
        denoiser_of(FLOW, lambda x, *_, **__: x),
        jnp.ones(3),
        jnp.float32(0.5),
        noise=jnp.ones(3),
        rules=DiffusionLoss(weight="uncertainty"),
    ),
    "net must predict a variance": lambda: denoiser_of(DenoiserConfig(), lambda x, *_, **__: x).variance(
        jnp.ones(3), jnp.float32(0.5)
    ),
    "schedule must have steps": lambda: bits_per_dimension(
        denoiser_of(FLOW, lambda x, *_, **__: x), jnp.ones(3), variance="least", key=jr.key(0)
    ),
    "variance learned must have": lambda: bits_per_dimension(
        denoiser_of(FLOW, lambda x, *_, **__: x), jnp.ones(3), key=jr.key(0)
    ),
    "loss.weight must be one of": lambda: DiffusionLoss(weight="snrr"),
    "loss.variance must be at least 0": lambda: DiffusionLoss(variance=-1.0),
}


@pytest.mark.parametrize("message", BAD)
def test_a_loss_that_cannot_be_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
