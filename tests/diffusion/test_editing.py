"""Editing and likelihood against closed forms."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion import grids
from eqxgen.diffusion.editing import Upsampled, inpaint, invert, path_of, sdedit, slerp, strength
from eqxgen.diffusion.likelihood import log_likelihood
from eqxgen.diffusion.schedules import VE, VP, Flow
from eqxgen.diffusion.solvers import Euler, Heun, sample
from tests.diffusion.mixture import DEVIATIONS, MEANS, WEIGHTS, Mixture


class Normal(eqx.Module):
    """The exact denoiser of a normal density of two dimensions."""

    schedule: eqx.Module
    mean = (0.3, -0.2)
    covariance = ((0.25, 0.2), (0.2, 0.3))

    def __call__(self, x, t, condition=None, *, key=None, inference=None):
        alpha, sigma = self.schedule(t)
        mean, covariance = jnp.asarray(self.mean, x.dtype), jnp.asarray(self.covariance, x.dtype)
        total = alpha**2 * covariance + sigma**2 * jnp.eye(2, dtype=x.dtype)
        return mean + alpha * covariance @ jnp.linalg.solve(total, x - alpha * mean)


def density(x, noise):
    """log N(x; mean, covariance + noise²)."""
    total = np.asarray(Normal.covariance) + noise**2 * np.eye(2)
    off = x - np.asarray(Normal.mean)
    return -off @ np.linalg.solve(total, off) / 2 - np.log(np.linalg.det(2 * np.pi * total)) / 2


@pytest.mark.parametrize("schedule", [VE(), VP(), Flow()], ids=["ve", "vp", "flow"])
def test_the_log_likelihood_of_a_normal_is_its_closed_form(schedule):
    high = 1000.0 if not isinstance(schedule, VP) else 150.0
    times = grids.times(schedule, grids.karras(60, 0.01, high))
    x = jnp.asarray([0.5, -0.6])
    # x is taken as at the last noise: alpha times the data.
    level = schedule(times[-2])
    want = density(np.asarray(x, np.float64) / float(level.alpha), 0.01) - 2 * math.log(float(level.alpha))
    found = log_likelihood(Normal(schedule), x, times)
    # The prior of the first level is centred: its density is off by z · mean / high.
    assert abs(float(found.log_density) - want) < 0.6 / high + 5e-4
    assert int(found.evaluations) == 4 * 59
    estimates = [
        log_likelihood(Normal(schedule), x, times, key=jr.key(seed), probes=64).log_density for seed in range(2)
    ]
    assert abs(np.mean(estimates) - want) < 0.3
    assert estimates[0] != estimates[1]


def test_inpainting_keeps_known_pixels_and_follows_the_conditional_density():
    """One number of a correlated pair is known: the other has the conditional mean and deviation, nearly. RePaint's error
    falls with steps and repeats: 0.013 and 0.020 at 90 steps of 40 repeats, 0.042 and 0.036 here."""
    image, known = jnp.asarray([[0.9, 0.0]]), jnp.asarray([True, False])
    times = grids.times(VE(), grids.karras(30, 0.005, 10.0))
    run = lambda key: inpaint(Normal(VE()), image[0], known, times, key=key, jump=3, repeats=10)
    found = jax.jit(jax.vmap(run))(jr.split(jr.key(0), 2000))
    assert (found.x[:, 0] == image[0, 0]).all()
    (a, b), (_, d) = Normal.covariance
    mean = Normal.mean[1] + b / a * (0.9 - Normal.mean[0])
    assert abs(float(found.x[:, 1].mean()) - mean) < 0.07
    assert abs(float(found.x[:, 1].std()) - math.sqrt(d - b**2 / a)) < 0.06
    assert (found.evaluations == (np.diff(path_of(30, 3, 10)) > 0).sum()).all()


def test_the_path_of_repaint_is_that_of_its_appendix():
    # get_schedule_jump of the authors, by steps that remain: 6 steps, jumps of 2, twice.
    assert (6 - path_of(6, 2, 2)).tolist() == [6, 5, 4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0]
    assert path_of(4, 4, 1).tolist() == [0, 1, 2, 3, 4]


def test_sdedit_changes_more_with_more_noise():
    image = jnp.full((4, 4, 1), 0.1)
    times = grids.times(VE(), grids.karras(20))
    off = [
        float(jnp.mean(jnp.abs(sdedit(Mixture(VE()), image, strength(times, s), Heun(), key=jr.key(0)).x - image)))
        for s in (0.3, 0.95)
    ]
    assert off[0] < 0.8 * off[1]
    assert len(strength(times, 0.25)) == 6


def test_inversion_returns_to_the_image_as_its_iterations_grow():
    times = grids.times(Flow(), grids.exponential(25, 0.02, 50.0))
    image = sample(Mixture(Flow()), jr.normal(jr.key(0), (3, 2)), times, Euler()).x
    off = []
    for iterations in (1, 4, 16):
        noise = invert(Mixture(Flow()), image, times, iterations=iterations)
        assert int(noise.evaluations) == 25 * iterations
        off.append(float(jnp.abs(sample(Mixture(Flow()), noise.x, times, Euler()).x - image).max()))
    assert off[0] > 5 * off[1]
    assert off[2] < 1e-4


def test_slerp_keeps_the_norm_and_its_ends():
    a, b = jr.normal(jr.key(0), (2, 8, 8, 3))
    b = b * jnp.linalg.norm(a) / jnp.linalg.norm(b)
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-5)
    assert abs(float(jnp.linalg.norm(slerp(a, b, 0.3)) / jnp.linalg.norm(a)) - 1) < 1e-5
    np.testing.assert_allclose(slerp(a, a, 0.3), a, atol=1e-5)


def test_super_resolution_gives_the_network_the_enlarged_image():
    seen = []

    class Net(eqx.Module):
        null_label = 3

        def __call__(self, x, time, condition, *, key=None, inference=None):
            seen.append((x, condition))
            return x[..., :3]

    x, small = jr.normal(jr.key(0), (6, 6, 3)), jnp.full((3, 3, 3), 0.5)
    net = Upsampled(Net())
    assert net(x, jnp.asarray(1.0), (small, 2)).shape == (6, 6, 3)
    np.testing.assert_allclose(seen[0][0], jnp.concatenate([x, jnp.full((6, 6, 3), 0.5)], -1), atol=1e-6)
    assert seen[0][1] == 2
    assert net.null_label == 3


X, TIMES = jnp.zeros((4, 4, 2)), jnp.asarray([5.0, 1.0, 0.0])
BAD = {
    "known must have the image's shape": lambda: inpaint(
        Mixture(VE()), X, jnp.ones((4, 3), bool), TIMES, key=jr.key(0)
    ),
    "jump must be at most the number of steps, 2: got 10": lambda: inpaint(
        Mixture(VE()), X, jnp.ones((4, 4), bool), TIMES, key=jr.key(0)
    ),
    "repeats must be at least 1": lambda: path_of(10, 5, 0),
    "share must be in": lambda: strength(TIMES, 1.2),
    "iterations must be at least 1": lambda: invert(Mixture(VE()), X, TIMES, iterations=0),
    "times must be at least three": lambda: log_likelihood(Mixture(VE()), X, TIMES[1:]),
    "probes must be at least 1, with key=": lambda: log_likelihood(Mixture(VE()), X, TIMES, probes=2),
    "the small image must be at most": lambda: Upsampled(lambda *_, **__: None)(
        X, jnp.asarray(1.0), (jnp.zeros((5, 5, 2)), None)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_edit_is_one_line(message):
    with pytest.raises(ValueError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)


def test_the_likelihood_of_a_mixture_is_its_density():
    x = np.asarray([-0.7, 0.2, 0.85])
    times = grids.times(VE(), grids.karras(50, 0.002, 80.0))
    found = log_likelihood(Mixture(VE()), jnp.asarray(x, jnp.float32), times).log_density
    parts = WEIGHTS / DEVIATIONS / math.sqrt(2 * math.pi) * np.exp(-((x[:, None] - MEANS) ** 2) / 2 / DEVIATIONS**2)
    assert abs(float(found) - np.log(parts.sum(1)).sum()) < 5e-3
