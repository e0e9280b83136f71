"""Schedules, views and preconditioners beside diffusers' and their definitions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.configs import DenoiserConfig, ScheduleConfig
from eqxgen.configs.diffusion import SCHEDULE_NAMES
from eqxgen.diffusion.precondition import PRECONDITIONS, denoiser_of
from eqxgen.diffusion.schedules import VP, Discrete, Flow, betas_of, schedule_of, zero_terminal
from eqxgen.diffusion.views import VIEWS, view_of, x0_of
from eqxgen.protocols import Denoiser
from tests import oracles
from tests.oracles.schedules import BETAS, SIGMAS

GOLDEN = oracles.load("schedules")
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, *shape)), jnp.float32)


def golden_schedule(name):
    options = BETAS[name]
    config = ScheduleConfig(
        name={"squaredcos_cap_v2": "cosine"}.get(options["beta_schedule"], options["beta_schedule"]),
        steps=options.get("num_train_timesteps", 1000),
        low=options.get("beta_start", 1e-4),
        high=options.get("beta_end", 0.02),
        zero_terminal="rescale_betas_zero_snr" in options,
    )
    return schedule_of(config)


@pytest.mark.parametrize("name", BETAS)
def test_levels_noised_examples_and_velocities_are_those_of_diffusers(name):
    case, schedule = GOLDEN[name], golden_schedule(name)
    every = max(1, schedule.steps // 50)
    t = (np.arange(0, schedule.steps, every) + 1) / schedule.steps
    np.testing.assert_allclose(np.asarray(schedule.betas)[::every], case["betas"], **EXACT)
    np.testing.assert_allclose(np.square(schedule(t).alpha), case["level"], **EXACT)
    for step, x0, noise, x, velocity in zip(*(case[k] for k in ("steps", "x0", "noise", "x", "velocity"))):
        level = schedule((step + 1) / schedule.steps)
        found = level.diffuse(jnp.asarray(x0), jnp.asarray(noise))
        np.testing.assert_allclose(found, x, **EXACT)
        np.testing.assert_allclose(level.alpha * noise - level.sigma * x0, velocity, **EXACT)


def test_edm_scales_input_output_and_level_as_diffusers():
    case = GOLDEN["edm"]
    config = DenoiserConfig(prediction="edm", sigma_data=0.6, schedule=ScheduleConfig(name="edm"))
    for i, sigma in enumerate(SIGMAS):
        denoiser = denoiser_of(config, lambda *_, i=i, **__: jnp.asarray(case["output"][i]))
        x, scale = jnp.asarray(case["x"][i]), denoiser.scalings(jnp.float32(sigma))
        np.testing.assert_allclose(scale.c_in * x, case["input"][i], **EXACT)
        np.testing.assert_allclose(scale.c_noise, case["noise"][i], **EXACT)
        np.testing.assert_allclose(denoiser(x, jnp.float32(sigma)), case["x0"][i], **EXACT)


def test_the_flow_is_the_straight_path_of_diffusers():
    case = GOLDEN["flow"]
    found = [
        Flow()(t).diffuse(x0, noise) for t, x0, noise in zip(case["t"], *map(jnp.asarray, (case["x0"], case["noise"])))
    ]
    np.testing.assert_allclose(found, case["x"], **EXACT)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_a_schedule_begins_with_data_and_its_time_is_the_inverse_of_its_ratio(name):
    schedule = schedule_of(ScheduleConfig(name=name, steps=37))
    start = schedule(0.0)
    assert (float(start.alpha), float(start.sigma)) == (1, 0)
    t = np.linspace(0.003, 0.999, 41) * schedule.end
    ratio = schedule(t).ratio
    assert (np.diff(ratio) > 0).all()
    np.testing.assert_allclose(schedule.time(ratio), t, rtol=2e-5)
    assert float(schedule.time(jnp.zeros(()))) == 0


DEFINED = {
    "cosine": lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2,
    "sqrt": lambda t: 1 - np.sqrt(t + 1e-4),
    "sigmoid_level": lambda t: (1 / (1 + np.exp(-3)) - 1 / (1 + np.exp(3 - 6 * t))) / np.tanh(1.5),
}


@pytest.mark.parametrize("name", DEFINED)
def test_betas_defined_by_levels_have_these_levels_up_to_their_bound(name):
    beta = np.asarray(betas_of(name, 100))
    level = np.cumprod(1 - beta) * DEFINED[name](0)
    bounded = np.flatnonzero(beta >= 0.999)
    np.testing.assert_allclose(level[:99], DEFINED[name](np.arange(1, 100) / 100), rtol=1e-9)
    assert list(bounded) in ([], [99])


def test_vp_has_the_levels_of_its_stochastic_differential_equation():
    t = np.linspace(0.01, 1, 7)
    total = np.asarray([np.trapezoid(0.1 + 19.9 * (s := np.linspace(0, end, 20001)), s) for end in t])
    level = VP()(t)
    np.testing.assert_allclose(level.alpha, np.exp(-total / 2), rtol=1e-5)
    np.testing.assert_allclose(level.sigma, np.sqrt(1 - np.exp(-total)), rtol=1e-5)


def test_a_schedule_without_terminal_signal_ends_in_pure_noise():
    schedule = Discrete(zero_terminal(betas_of("linear", 50, 1e-3, 0.3)))
    end = schedule(1.0)
    assert (float(end.alpha), float(end.sigma)) == (0, 1)
    assert np.isfinite(np.asarray(schedule(np.linspace(0, 1, 301)))).all()


def test_linear_betas_begin_at_1e_4_and_not_at_the_seeds_1e_3():
    assert betas_of("linear", 1000)[0] == 1e-4
    np.testing.assert_allclose(schedule_of(ScheduleConfig())(1 / 1000).sigma, 0.01, rtol=1e-5)


def test_edm_tells_its_network_a_quarter_of_the_logarithm_and_not_the_seeds_raw_sigma():
    found = []
    net = lambda x, level, label, **_: found.append(float(level)) or x
    denoiser_of(DenoiserConfig(prediction="edm", schedule=ScheduleConfig(name="edm")), net)(
        jnp.ones(3), jnp.float32(80)
    )
    assert found == pytest.approx([math.log(80) / 4])


LEVELS = {"discrete": ("linear", 0.37), "without noise": ("cosine", 0.001), "flow": ("flow", 0.6), "edm": ("edm", 3.0)}


@pytest.mark.parametrize("first", VIEWS)
def test_each_view_becomes_every_other_and_returns(first):
    x0, noise = normal(0, 5, 3)
    for second, (name, t) in itertools.product(set(VIEWS) - {first}, LEVELS.values()):
        level = schedule_of(ScheduleConfig(name=name))(t)
        x = level.diffuse(x0, noise)
        value = view_of(first, x, x0, level)
        other = view_of(second, x, x0_of(first, value, x, level), level)
        back = view_of(first, x, x0_of(second, other, x, level), level)
        scale = np.abs(value).max()
        # x_0 and the noise have 1, so that a view of x_0 loses digits where there is little noise.
        np.testing.assert_allclose(back / scale, value / scale, atol=2e-6 / min(1, float(level.sigma) ** 2) ** 0.5)


def test_views_are_their_definitions():
    x0, noise = np.random.default_rng(1).normal(size=(2, 5, 3))
    for name, t in LEVELS.values():
        level = schedule_of(ScheduleConfig(name=name))(t)
        a, s = (np.float64(part) for part in level)
        x, ratio = a * x0 + s * noise, s / a
        c_skip, c_out = 0.25 / (ratio**2 + 0.25), ratio * 0.5 / np.sqrt(ratio**2 + 0.25)
        defined = {
            "epsilon": noise,
            "x0": x0,
            "v": a * noise - s * x0,
            "velocity": noise - x0,
            "F": (x0 - c_skip * x / a) / c_out,
            "score": -noise / s,
        }
        for view, value in defined.items():
            found = view_of(view, jnp.float32(x), jnp.float32(x0), level)
            scale = np.abs(value).max()
            np.testing.assert_allclose(found / scale, value / scale, atol=1e-6 / min(1, s), err_msg=view)


DENOISERS = [
    ("epsilon", "linear"),
    ("iddpm", "cosine"),
    ("vp", "vp"),
    ("ve", "ve"),
    ("x0", "flow"),
    ("v", "cosine"),
    ("velocity", "flow"),
    ("edm", "edm"),
]


@pytest.mark.parametrize(("prediction", "schedule"), DENOISERS)
def test_a_network_that_knows_its_view_gives_the_example(prediction, schedule):
    x0, noise = normal(2, 4, 3)
    config = DenoiserConfig(prediction=prediction, schedule=ScheduleConfig(name=schedule, steps=10))
    schedule, view = schedule_of(config.schedule), PRECONDITIONS[prediction].VIEW
    t = jnp.float32(0.4 * schedule.end)
    level = schedule(t)
    x = level.diffuse(x0, noise)
    denoiser = denoiser_of(config, lambda given, *_, **__: view_of(view, x, x0, level))
    assert isinstance(denoiser, Denoiser)
    assert not [leaf for leaf in jax.tree.leaves(denoiser) if isinstance(leaf, jax.Array)]
    np.testing.assert_allclose(denoiser(x, t), x0, atol=2e-5)


def test_the_number_of_a_level_is_its_step_or_a_thousandth():
    table = {("epsilon", "linear", 0.4): 3, ("iddpm", "linear", 0.437): 3, ("vp", "vp", 0.4): 399.6}
    table |= {("velocity", "flow", 0.4): 400, ("ve", "ve", 5.0): math.log(2.5)}
    for (prediction, name, t), wanted in table.items():
        config = DenoiserConfig(prediction=prediction, schedule=ScheduleConfig(name=name, steps=10))
        assert float(denoiser_of(config, None).scalings(jnp.float32(t)).c_noise) == pytest.approx(wanted, rel=1e-5)


BAD = {
    "betas must be in": lambda: Discrete((0.1, 1.5)),
    "betas must be at least 2": lambda: Discrete((0.1,)),
    "steps must be at least 2: got 1": lambda: betas_of("linear", 1),
    "schedule must be one of linear": lambda: betas_of("lineer", 10),
    "view must be one of": lambda: view_of("eps", jnp.ones(2), jnp.ones(2), Flow()(0.5)),
    "schedule.name must be one of": lambda: ScheduleConfig(name="quadratic"),
    "schedule.low and schedule.high": lambda: ScheduleConfig(low=0.5, high=0.1),
    "schedule.zero_terminal must go with": lambda: ScheduleConfig(name="flow", zero_terminal=True),
    "denoiser.prediction iddpm must have": lambda: DenoiserConfig(
        prediction="iddpm", schedule=ScheduleConfig(name="vp")
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_a_schedule_that_cannot_be_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
