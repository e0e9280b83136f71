"""Grids against their definitions, and their bad inputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.diffusion import grids
from eqxgen.diffusion.schedules import VP, Discrete, Flow, betas_of
from tests.oracles import load


def test_karras_equals_equation_5_of_edm():
    i = np.arange(18) / 17
    want = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grids.karras(18), want, rtol=1e-6)
    np.testing.assert_allclose(grids.karras(1), [80], rtol=1e-6)


def test_vp_and_ve_equal_table_1_of_edm():
    t = 1 + np.arange(9) / 8 * (1e-3 - 1)
    np.testing.assert_allclose(grids.vp(9), np.sqrt(np.exp(19.9 / 2 * t**2 + 0.1 * t) - 1), rtol=1e-6)
    squares = 100**2 * (0.02**2 / 100**2) ** (np.arange(9) / 8)
    np.testing.assert_allclose(grids.ve(9), np.sqrt(squares), rtol=1e-6)
    np.testing.assert_allclose(VP().time(grids.vp(9)), t, rtol=2e-5)


def test_iddpm_equals_table_1_of_edm():
    levels, u = 1000, np.zeros(1001)
    bar = lambda j: np.sin(0.5 * np.pi * j / levels / (0.008 + 1)) ** 2
    for j in range(levels, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(bar(j - 1) / bar(j), 0.001) - 1)
    inside = u[(u >= 0.002) & (u <= 81)]
    want = inside[np.round((len(inside) - 1) / 10 * np.arange(11)).astype(int)]
    np.testing.assert_allclose(grids.iddpm(11, 0.002, 81.0), want, rtol=1e-6)


def test_polynomial_with_rho_1_is_exponential_and_falls_faster_with_more():
    np.testing.assert_allclose(grids.polynomial(7), grids.exponential(7), rtol=1e-5)
    assert (grids.polynomial(7, rho=2.0)[1:-1] < grids.exponential(7)[1:-1]).all()


CASES = {"ddpm small": grids.leading, "ddim": grids.trailing, "pndm": grids.leading, "euler": grids.linspace}


@pytest.mark.parametrize("name", CASES)
def test_spacings_of_a_discrete_schedule_are_those_of_diffusers(name):
    ratios = load("solvers")[name]["ratios"]
    found = CASES[name](len(ratios) - 1, 1000)
    schedule = Discrete(betas_of("linear", 1000))
    np.testing.assert_allclose(schedule(found[:-1]).ratio, ratios[:-1], rtol=2e-4)
    assert found[-1] == 0


def test_times_end_with_data():
    found = grids.times(Flow(), grids.karras(5))
    assert found.shape == (6,)
    assert found[-1] == 0
    assert (jnp.diff(found) < 0).all()


BAD = {
    "steps must be at least 1: got 0": lambda: grids.karras(0),
    "low must be positive and below high: got low=80, high=0.002": lambda: grids.exponential(5, 80.0, 0.002),
    "low must be positive and below high: got low=1, high=1": lambda: grids.karras(5, 1.0, 1.0),
    "rho must be positive: got 0": lambda: grids.karras(5, rho=0.0),
    "steps must be at most the number of training steps, 1000: got 1001": lambda: grids.trailing(1001, 1000),
    "steps must be at least 1: got -1": lambda: grids.leading(-1, 1000),
    "offset must leave the steps": lambda: grids.leading(10, 1000, 100),
    "steps must be at most the number of levels": lambda: grids.iddpm(2000),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_grid_is_one_line(message):
    with pytest.raises(ValueError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
