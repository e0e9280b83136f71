"""The driver: no recompilation, images that do not depend on their batch, export, bad inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import DiffusionSampling, ScheduleConfig
from eqxgen.configs.diffusion import GUIDANCE_RULES
from eqxgen.diffusion import grids
from eqxgen.diffusion.generate import RULES, Rules, check_least, generate, guided
from eqxgen.diffusion.guidance import apg, cfg, cfg_zero_star
from eqxgen.diffusion.schedules import VE, Flow, schedule_of
from eqxgen.diffusion.solvers import DDIM, DDPM, DPM2, LMS, Churn, DPMSolverMulti, Euler, Heun, sample
from tests.diffusion.mixture import Mixture

LABEL = jnp.asarray(1)


def test_another_guidance_sigma_range_churn_or_eta_compiles_nothing():
    traced = []

    @eqx.filter_jit
    def run(denoiser, solver, times, x):
        traced.append(solver)
        return sample(denoiser, x, times, solver, key=jr.key(0), condition=LABEL).x

    def both(scale, low, high, sigma, churn, eta):
        guided = cfg(Mixture(VE()), 0, scale, interval=(low, high), rescale=0.1 * scale)
        times, x = grids.times(VE(), grids.karras(4, 0.01, sigma)), sigma * jnp.ones(3)
        return run(guided, Churn(churn=churn, low=low, high=high), times, x), run(guided, DDIM(eta), times, x)

    first, second = both(2.0, 0.3, 5.0, 80.0, 4.0, 0.0), both(3.5, 0.1, 9.0, 60.0, 1.0, 0.8)
    assert len(traced) == 2
    assert all((a != b).any() for a, b in zip(first, second))


def test_an_image_is_the_same_in_any_batch():
    keys = jax.vmap(lambda i: jr.fold_in(jr.key(0), i))(jnp.arange(6))
    times = grids.times(VE(), grids.karras(5))

    @jax.jit
    def run(keys):
        one = lambda key: sample(Mixture(VE()), 80 * jr.normal(key, (3, 2)), times, Churn(), key=key).x
        return jax.vmap(one)(keys)

    # Programs of another batch round otherwise, and x begins at 80.
    np.testing.assert_allclose(run(keys)[3], run(keys[3:4])[0], atol=2e-5)


def test_a_guided_sampler_is_exported():
    options = DiffusionSampling(steps=3, sampler="unipc", guidance=2.0, interval="0.1,9")
    rules = Rules.of(options, VE(), (2, 2))
    denoiser = Mixture(VE(), conditional=True)

    @jax.jit
    def run(seed, label):
        return generate(denoiser, rules, label, null=0, key=jr.key(seed)).x

    exported = jax.export.export(run)(jnp.uint32(0), LABEL)
    np.testing.assert_array_equal(exported.call(jnp.uint32(1), LABEL), run(jnp.uint32(1), LABEL))


def test_a_rule_of_guidance_is_taken_by_its_name():
    x, t, denoiser = jnp.asarray([0.3, -2.0, 1.0]), jnp.asarray(0.8), Mixture(VE(), conditional=True)
    makers = {"cfg": cfg, "apg": apg, "cfg_zero_star": cfg_zero_star}
    assert set(makers) == set(GUIDANCE_RULES) == set(RULES)
    found = {}
    for name, make in makers.items():
        numbers = {"apg_momentum": 0.0} if name == "apg" else {}
        options = DiffusionSampling(guidance=3.0, guidance_rule=name, interval="0.5,2", **numbers)
        rules = Rules.of(options, VE(), (3,))
        found[name] = guided(denoiser, rules.guide, 0)(x, t, LABEL)
        np.testing.assert_allclose(found[name], make(denoiser, 0, 3.0)(x, t, LABEL), rtol=1e-5)
        outside = guided(denoiser, rules.guide, 0)(x, jnp.asarray(3.0), LABEL)
        np.testing.assert_allclose(outside, denoiser(x, jnp.asarray(3.0), LABEL), rtol=1e-6)
    assert len({tuple(np.asarray(value).round(4)) for value in found.values()}) == 3
    assert guided(denoiser, None, 0) is denoiser


RULED = {
    "heun": ("apg", VE(), {}, {"apg_momentum": -0.75, "apg_norm": 0.1, "apg_parallel": 0.3}),
    "rk45": ("apg", VE(), {}, {"apg_momentum": 0.4}),
    "flow_euler": ("cfg_zero_star", Flow(), {}, {"zero_steps": 2}),
}


@pytest.mark.parametrize("sampler", RULED)
def test_another_number_of_a_rule_of_guidance_compiles_nothing(sampler):
    rule, schedule, *numbers = RULED[sampler]
    traced = []

    @eqx.filter_jit
    def run(rules):
        traced.append(rules)
        return generate(Mixture(schedule, conditional=True), rules, LABEL, null=0, key=jr.key(0)).x

    grid = "flow" if isinstance(schedule, Flow) else "karras"
    options = {
        "steps": 4,
        "sampler": sampler,
        "grid": grid,
        "guidance": 3.0,
        "guidance_rule": rule,
        "interval": "0.1,90",
    }
    first, second = (run(Rules.of(DiffusionSampling(**options, **given), schedule, (3,))) for given in numbers)
    assert len(traced) == 1
    assert np.isfinite(first).all()
    assert np.abs(first - second).max() > 1e-4


WRONG = {
    "apg_norm must be 0 with sampling.guidance_rule cfg, as it is of apg: got 2": {"apg_norm": 2.0},
    "apg_momentum must be -0.5 with sampling.guidance_rule cfg_zero_star": {
        "guidance_rule": "cfg_zero_star",
        "apg_momentum": 0.0,
    },
    "apg_parallel must be 0 with": {"apg_parallel": 0.5},
    "zero_steps must be 0 with sampling.guidance_rule apg": {"guidance_rule": "apg", "zero_steps": 1},
    "zero_steps must be below sampling.steps: got 18 of 18": {"guidance_rule": "cfg_zero_star", "zero_steps": 18},
    "zero_steps must be 0 but for the schedule flow": {"guidance_rule": "cfg_zero_star", "zero_steps": 1},
    r"apg_momentum must be in \(-1, 1\): got -1": {"apg_momentum": -1.0},
    r"apg_parallel must be in \[0, 1\]: got 2": {"apg_parallel": 2.0},
    "apg_norm must be at least 0": {"apg_norm": -1.0},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_number_of_another_rule_of_guidance_is_refused(message):
    with pytest.raises(ValueError, match=f"^sampling.{message}"):
        Rules.of(DiffusionSampling(**WRONG[message]), VE(), (3,))


def test_the_least_level_of_training_is_the_least_of_a_grid_that_is_asked_for():
    schedule = schedule_of(ScheduleConfig())
    first = float(schedule(1 / 1000).ratio)
    for grid in ("karras", "exponential", "polynomial", "ve", "iddpm"):
        check_least(DiffusionSampling(grid=grid, sigma_min=first), schedule)
        with pytest.raises(ValueError, match=r"sigma_min must be at least the schedule's .* 0.0100005, .*: got 0.009"):
            check_least(DiffusionSampling(grid=grid, sigma_min=0.009), schedule)
    check_least(DiffusionSampling(grid="trailing"), schedule)
    check_least(DiffusionSampling(), VE())


X, TIMES, D = jnp.ones(3), jnp.asarray([5.0, 1.0, 0.0]), Mixture(VE())
BAD = {
    "eta must be in": lambda: DDIM(1.5),
    "eta must be in .* got -0.1": lambda: DPM2(-0.1),
    "churn must be in": lambda: Churn(churn=-1.0),
    "low must be at most high": lambda: Churn(low=5.0, high=1.0),
    "order must be 1, 2 or 3: got 4": lambda: DPMSolverMulti(4),
    "order must be from 1 to 4": lambda: LMS(5),
    "times must be at least two": lambda: sample(D, X, TIMES[:1], Euler()),
    "times must fall": lambda: sample(D, X, TIMES[::-1], Heun()),
    "DDPM needs a learned variance": lambda: sample(D, X, TIMES, DDPM("learned"), key=jr.key(0)),
    "DDPM draws noise": lambda: sample(D, X, TIMES, DDPM()),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
