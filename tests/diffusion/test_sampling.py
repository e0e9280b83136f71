"""The driver: no recompilation, images that do not depend on their batch, export, bad inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion import grids
from eqxgen.diffusion.guidance import cfg
from eqxgen.diffusion.schedules import VE
from eqxgen.diffusion.solvers import DDIM, DDPM, DPM2, LMS, Churn, DPMSolverMulti, Euler, Heun, UniPC, sample
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


def test_a_sampler_is_exported():
    run = jax.jit(lambda x, times: sample(Mixture(VE()), x, times, UniPC()).x)
    x, times = 80 * jnp.ones((2, 2)), grids.times(VE(), grids.karras(5))
    np.testing.assert_array_equal(jax.export.export(run)(x, times).call(x, times), run(x, times))


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
