"""Solvers against the exact denoiser of a mixture: order of convergence, end distribution, published definitions."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion import grids
from eqxgen.diffusion.schedules import VE, VP, Flow
from eqxgen.diffusion.solvers import (
    DDIM,
    DDPM,
    DEIS,
    DPM2,
    IPNDM,
    LMS,
    PNDM,
    RK4,
    RK45,
    Brownian,
    Churn,
    DPMSolver2S,
    DPMSolverMulti,
    Euler,
    FlowEuler,
    FlowHeun,
    Heun,
    PerStep,
    UniPC,
    ancestral,
    sample,
)
from tests.diffusion.mixture import DEVIATIONS, MEANS, WEIGHTS, Mixture, denoised
from tests.full import FULL, rows

# Solver, slope of log error by log steps. Published 3M has half a coefficient; IPNDM's weights are those of equal steps.
ORDERS = {
    "Euler": (Euler(), 1),
    "DDIM": (DDIM(), 1),
    "FlowEuler": (FlowEuler(), 1),
    "DPM++ 1": (DPMSolverMulti(1), 1),
    "Heun": (Heun(), 2),
    "FlowHeun": (FlowHeun(), 2),
    "DPM2": (DPM2(), 2),
    "2S": (DPMSolver2S(), 2),
    "2M": (DPMSolverMulti(2), 2),
    "3M as published": (DPMSolverMulti(3), 2),
    "3M": (DPMSolverMulti(3, exact=True), 3),
    "UniP 2": (UniPC(2, corrector=False), 2),
    "UniPC 1": (UniPC(1), 2),
    "UniPC 2": (UniPC(2), 3),
    "UniPC 2 bh1": (UniPC(2, "bh1"), 3),
    "UniPC 3": (UniPC(3), 4),
    "LMS 2": (LMS(2), 2),
    "LMS 3": (LMS(3), 3),
    "LMS 4": (LMS(4), 4),
    "DEIS 2": (DEIS(2), 2),
    "DEIS 3": (DEIS(3), 3),
    "DEIS 4": (DEIS(4), 4),
    "IPNDM": (IPNDM(), 2),
    "PNDM": (PNDM(), 2),
    "RK4": (RK4(), 4),
}
START, END, NOISES = 400.0, 0.1, np.random.default_rng(0).normal(size=33)
STEPS = (32, 64, 128) if FULL else (64, 128)


def ratios_of(steps):
    """Equal steps in log ratio, and four more below: a predictor's last steps are of lower order."""
    return np.exp(np.log(START) + np.arange(steps + 5) / steps * np.log(END / START))


@pytest.fixture(scope="module")
def exact():
    """x at ratio END of the flow from START, in float64."""
    with jax.enable_x64(True):
        ratios = np.exp(np.linspace(np.log(START), np.log(END), 2001))
        return np.asarray(sample(Mixture(VE()), START * jnp.asarray(NOISES), jnp.asarray(ratios), RK4()).x)


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_with_the_claimed_order(name, exact):
    solver, order = ORDERS[name]
    with jax.enable_x64(True):
        x = START * jnp.asarray(NOISES)
        run = lambda steps: sample(Mixture(VE()), x, ratios_of(steps), solver, trajectory=True)
        errors = [np.sqrt(np.mean((np.asarray(run(n).trajectory)[n - 1] - exact) ** 2)) for n in STEPS]
    slopes = np.diff(-np.log2(errors))
    assert order - 0.35 < slopes[-1] < order + 0.6, (errors, slopes)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_the_adaptive_solver_keeps_its_tolerance_and_counts_its_evaluations(tolerance, exact):
    seen = []
    with jax.enable_x64(True):
        denoiser = Mixture(VE(), called=seen.append)
        found = sample(denoiser, START * jnp.asarray(NOISES), np.asarray([START, END]), RK45(tolerance, tolerance))
        jax.effects_barrier()
    assert np.sqrt(np.mean((np.asarray(found.x) - exact) ** 2)) < 3 * tolerance
    assert int(found.evaluations) == len(seen) < 150


def test_an_adaptive_solver_out_of_trials_gives_nan():
    found = sample(Mixture(VE()), START * jnp.ones(2), jnp.asarray([START, END, 0.0]), RK45(1e-6, 1e-6, trials=3))
    assert np.isnan(found.x).all()


EVERY = {
    **{name: solver for name, (solver, _) in ORDERS.items()},
    "RK45": RK45(),
    "DDIM noisy": DDIM(0.6),
    "ancestral": ancestral(),
    "DDPM": DDPM(),
    "DDPM large": DDPM("large"),
    "DPM2 ancestral": DPM2(1.0),
    "2S SDE": DPMSolver2S(1.0),
    "2M SDE": DPMSolverMulti(2, 1.0),
    "3M SDE": DPMSolverMulti(3, 0.5),
    "churned": Churn(),
}


@pytest.mark.parametrize("name", rows(EVERY, *list(EVERY)[1::2]))
def test_the_last_step_is_the_denoised_image_and_not_the_seeds_first_level_and_evaluations_are_true(name):
    """The seeds' DDIM ends at alpha-bar of the first step of training: its pictures keep that level's noise."""
    seen, steps = [], 6
    grid = np.append(np.geomspace(60, 0.02, steps), 0)
    denoiser = Mixture(VE(), called=lambda t: seen.append(float(t)))
    run = eqx.filter_jit(lambda x, grid: sample(denoiser, x, grid, EVERY[name], key=jr.key(1), trajectory=True))
    found = run(60 * jnp.asarray(NOISES, jnp.float32), jnp.asarray(grid, jnp.float32))
    jax.effects_barrier()
    assert int(found.evaluations) == len(seen)
    before = found.trajectory[-2]
    if name == "churned":
        return  # x of its last step is raised first
    np.testing.assert_allclose(found.x, denoised(before, 1.0, 0.02), atol=2e-6)


STATISTICS = {
    "Heun": (Heun(), 60),
    "2M": (DPMSolverMulti(2), 80),
    "UniPC 2": (UniPC(2), 60),
    "DDIM noisy": (DDIM(0.5), 400),
    "DDPM": (DDPM(), 600),
    "2S SDE": (DPMSolver2S(1.0), 150),
    "2M SDE": (DPMSolverMulti(2, 1.0), 200),
    "3M SDE": (DPMSolverMulti(3, 1.0), 150),
    "DPM2 ancestral": (DPM2(1.0), 200),
    "churned": (Churn(noise=1.0), 100),
}
SCHEDULES = {"ve": VE(), "vp": VP(), "flow": Flow()}
ENDS = [(name, "ve") for name in STATISTICS]
ENDS += [(name, other) for name in ("Heun", "DDPM", "2M SDE", "churned") for other in ("vp", "flow") if FULL]
ENDS = ENDS if FULL else [*ENDS[::2], ("2M SDE", "vp"), ("Heun", "flow")]


@pytest.mark.parametrize(("name", "schedule"), ENDS)
def test_the_end_distribution_is_the_data_s_within_its_standard_error(name, schedule):
    schedule = SCHEDULES[schedule]
    solver, steps = STATISTICS[name]
    count, ratios = 8_000, grids.karras(steps, 0.002, 60.0)
    times = grids.times(schedule, ratios)
    # The marginal of the first level, exactly.
    level, keys = schedule(times[0]), jr.split(jr.key(0), 4)
    data = jnp.asarray(MEANS)[jr.choice(keys[0], 3, (count,), p=jnp.asarray(WEIGHTS))]
    x = level.alpha * data + level.sigma * jr.normal(keys[1], (count,))
    found = np.asarray(sample(Mixture(schedule), x, times, solver, key=keys[2]).x, np.float64)
    # Shares of the three components, and mean and variance over all.
    variance = (WEIGHTS * (DEVIATIONS**2 + MEANS**2)).sum() - (WEIGHTS * MEANS).sum() ** 2
    fourth = np.mean((found - found.mean()) ** 4)
    assert abs(found.mean() - (WEIGHTS * MEANS).sum()) < 4 * math.sqrt(variance / count) + 0.004
    assert abs(found.var() - variance) < 4 * math.sqrt((fourth - variance**2) / count) + 0.004
    low = sum(w * (1 + math.erf((-0.4 - m) / d / math.sqrt(2))) / 2 for w, m, d in zip(WEIGHTS, MEANS, DEVIATIONS))
    assert abs(np.mean(found < -0.4) - low) < 4 * math.sqrt(low * (1 - low) / count) + 0.004


def denoise(x, sigma):
    return denoised(x, 1.0, sigma, np)


def edm(x, sigmas, noises, churn, low, high, noise):
    """Algorithm 2 of Karras et al. 2022."""
    for i, (sigma, end) in enumerate(itertools.pairwise(sigmas)):
        gamma = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1) if low <= sigma <= high else 0
        hat = sigma + gamma * sigma
        x_hat = x + math.sqrt(hat**2 - sigma**2) * noise * noises[i, 0]
        d = (x_hat - denoise(x_hat, hat)) / hat
        x = x_hat + (end - hat) * d
        if end > 0:
            x = x_hat + (end - hat) * (d + (x - denoise(x, end)) / end) / 2
    return x


def dpmpp_sde(x, sigmas, noises, eta):
    """k-diffusion's sample_dpmpp_sde with r = 1/2."""

    def down_up(start, end):
        up = min(end, eta * math.sqrt(end**2 * (start**2 - end**2) / start**2))
        return math.sqrt(end**2 - up**2), up

    for i, (sigma, end) in enumerate(itertools.pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if end == 0:
            x = x0
            continue
        middle = math.sqrt(sigma * end)
        down, up = down_up(sigma, middle)
        there = down / sigma * x + (1 - down / sigma) * x0 + up * noises[i, 0]
        down, up = down_up(sigma, end)
        x = down / sigma * x + (1 - down / sigma) * denoise(there, middle) + up * noises[i, 1]
    return x


def dpmpp_3m_sde(x, sigmas, noises, eta):
    """k-diffusion's sample_dpmpp_3m_sde."""
    before = []
    for i, (sigma, end) in enumerate(itertools.pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if end == 0:
            return x0
        h = math.log(sigma / end)
        z = h * (1 + eta)
        x = math.exp(-z) * x - math.expm1(-z) * x0
        phi_2 = math.expm1(-z) / z + 1
        if len(before) > 1:
            (h_1, x_1), (h_2, x_2) = before[-1], before[-2]
            r0, r1 = h_1 / h, h_2 / h
            d1_0, d1_1 = (x0 - x_1) / r0, (x_1 - x_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            x = x + phi_2 * d1 - (phi_2 / z - 0.5) * (d1_0 - d1_1) / (r0 + r1)
        elif before:
            h_1, x_1 = before[-1]
            x = x + phi_2 * (x0 - x_1) / (h_1 / h)
        x = x + end * math.sqrt(-math.expm1(-2 * h * eta)) * noises[i, 0]
        before.append((h, x0))
    return x


class Given(eqx.Module):
    noises: jax.Array

    def __call__(self, key, index, draw, interval, like):
        return self.noises[index, draw]


DEFINED = {
    "edm": (Churn(Heun(), churn=5.0, low=0.1, high=20.0, noise=1.02), edm, (5.0, 0.1, 20.0, 1.02)),
    "edm at most": (Churn(Heun(), churn=90.0, low=0.0, high=99.0, noise=1.0), edm, (90.0, 0.0, 99.0, 1.0)),
    "dpmpp_sde": (DPMSolver2S(1.0), dpmpp_sde, (1.0,)),
    "dpmpp_sde less": (DPMSolver2S(0.4), dpmpp_sde, (0.4,)),
    "dpmpp_3m_sde": (DPMSolverMulti(3, 1.0), dpmpp_3m_sde, (1.0,)),
    "dpmpp_3m_sde less": (DPMSolverMulti(3, 0.3), dpmpp_3m_sde, (0.3,)),
}


@pytest.mark.parametrize("name", DEFINED)
def test_stochastic_solvers_equal_their_definition_with_sigma_hat_and_not_the_seeds_sigma(name):
    """The seed's Heun has sigma where its second half has sigma-hat: its slope is divided by the wrong level. The
    definition here has sigma-hat in both.
    """
    solver, definition, numbers = DEFINED[name]
    sigmas = np.append(np.asarray(grids.karras(9, 0.01, 50.0), np.float64), 0)
    noises = np.random.default_rng(1).normal(size=(9, 2, 33))
    with jax.enable_x64(True):
        solver = jax.tree.map(lambda x: jnp.round(x.astype(jnp.float64), 6), solver)
        given = Given(jnp.asarray(noises))
        found = sample(Mixture(VE()), 50 * jnp.asarray(NOISES), sigmas, solver, key=jr.key(0), noise=given).x
    np.testing.assert_allclose(found, definition(50 * NOISES, sigmas, noises, *numbers), atol=1e-9)


def test_images_of_one_brownian_path_converge_with_the_number_of_steps():
    run = lambda steps, noise: np.asarray(
        sample(
            Mixture(VE()),
            60 * jnp.asarray(NOISES, jnp.float32),
            grids.times(VE(), grids.karras(steps, 0.01, 60.0)),
            DPMSolverMulti(2, 1.0),
            key=jr.key(2),
            noise=noise,
        ).x
    )
    path = Brownian(depth=12)
    fine = run(256, path)
    near, far = (np.mean(np.abs(run(steps, path) - fine)) for steps in (64, 16))
    other = np.mean(np.abs(run(64, PerStep()) - fine))
    assert near < far / 2
    assert near < other / 4
