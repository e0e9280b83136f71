"""Editing and likelihood against closed forms."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion import grids
from eqxgen.diffusion.editing import NullSpace, Upsampled, factor_of, inpaint, invert, path_of, sdedit, slerp, strength
from eqxgen.diffusion.likelihood import Likelihood, dequantised, log_likelihood
from eqxgen.diffusion.schedules import VE, VP, Flow
from eqxgen.diffusion.solvers import Euler, Heun, sample
from tests.arrays import drawn
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


def test_inpainting_keeps_what_is_outside_its_mask_and_follows_the_conditional_density():
    """One number of a correlated pair is kept: the other has the conditional mean and deviation, nearly. RePaint's error
    falls with steps and repeats: 0.013 and 0.020 at 90 steps of 40 repeats, 0.042 and 0.036 here."""
    image, mask = jnp.asarray([[0.9, 0.0]]), jnp.asarray([False, True])
    times = grids.times(VE(), grids.karras(30, 0.005, 10.0))
    run = lambda key: inpaint(Normal(VE()), image[0], times, mask=mask, key=key, jump=3, repeats=10)
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


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_a_strength_has_as_many_times_as_its_grid_within_its_range(share):
    times = np.asarray(grids.times(VE(), grids.karras(20)))
    found = np.asarray(strength(times, share))
    assert len(found) == len(times)
    assert found[-2:].tolist() == times[-2:].tolist()
    np.testing.assert_allclose(found[0], np.interp((1 - share) * 19, np.arange(20), times[:-1]), rtol=1e-5)


def quantile(x, noise):
    """Distribution function of the mixture with noise: the probability flow keeps it (of one number, it is monotone)."""
    off = (np.asarray(x, np.float64)[..., None] - MEANS) / np.sqrt(DEVIATIONS**2 + noise**2)
    return (WEIGHTS * (1 + np.vectorize(math.erf)(off / math.sqrt(2))) / 2).sum(-1)


def test_inversion_and_sdedit_follow_the_flow_of_a_mixture():
    times, high = grids.times(VE(), grids.karras(120, 0.002, 2.0)), 2.0
    images = jnp.linspace(-1, 1.1, 12)
    noise = jax.jit(lambda x: invert(Mixture(VE()), x, times, iterations=2).x)(images)
    np.testing.assert_allclose(quantile(noise, high), quantile(images, 0), atol=0.01)
    # Of an edit, the noised image is found again: its noise is a unit normal.
    edit = jax.jit(jax.vmap(lambda key: sdedit(Mixture(VE()), jnp.asarray([0.4]), times[40:], Heun(), key=key).x[0]))
    found, level = edit(jr.split(jr.key(0), 1000)), float(times[40])
    places = np.linspace(-8, 8, 4000)
    z = (np.interp(quantile(found, 0), quantile(places, level), places) - 0.4) / level
    assert abs(z.mean()) < 0.1
    assert abs(z.std() - 1) < 0.1


def test_inpainting_of_independent_pixels_has_the_density_of_the_mixture():
    times = grids.times(VE(), grids.karras(25, 0.01, 20.0))
    image, mask = jnp.full((4, 4, 1), 0.7), jnp.arange(16).reshape(4, 4) % 2 == 1
    run = lambda key: inpaint(Mixture(VE()), image, times, mask=mask, key=key, jump=1, repeats=2).x
    found = np.asarray(jax.jit(jax.vmap(run))(jr.split(jr.key(1), 250)))[..., 0]
    assert (found[:, ~np.asarray(mask)] == np.float32(0.7)).all()
    painted = found[:, np.asarray(mask)].ravel()
    for x in (-0.6, 0.0, 0.5):
        assert abs(float((painted < x).mean()) - quantile(x, 0)) < 0.05


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


class Pixels(eqx.Module):
    """The exact denoiser of independent normal pixels."""

    schedule: eqx.Module
    mean, deviation = 0.2, 0.5

    def __call__(self, x, t, condition=None, *, key=None, inference=None):
        alpha, sigma = self.schedule(t)
        share = alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2)
        return self.mean + share * (x - alpha * self.mean)


@pytest.mark.parametrize("schedule", [VE(), Flow()], ids=["ve", "flow"])
def test_super_resolution_by_any_denoiser_keeps_the_means_of_blocks_and_has_the_rest_of_the_data(schedule):
    """Of independent normal pixels, differences within a block are independent of its mean, with their own variance."""
    small = drawn((2, 3, 1))
    # exact for one denoised step too: the end of a solver is x_0
    times = jnp.asarray(grids.times(schedule, grids.karras(30, 0.002, 80.0)), jnp.float32)
    found = NullSpace(Pixels(schedule), small)
    noise = schedule(times[0]).sigma * drawn((500, 4, 6, 1), 1)
    x = jax.jit(jax.vmap(lambda x: sample(found, x, times, Heun()).x))(noise)
    blocks = np.asarray(x).reshape(500, 2, 2, 3, 2, 1).transpose(0, 1, 3, 5, 2, 4).reshape(500, 2, 3, 1, 4)
    np.testing.assert_allclose(blocks.mean(-1), np.broadcast_to(small, (500, 2, 3, 1)), atol=1e-5)
    rest = blocks - blocks.mean(-1, keepdims=True)
    variance = Pixels.deviation**2 * 3 / 4
    assert abs(rest.var() / variance - 1) < 0.04  # 9,000 normal numbers: a standard error of 0.015
    assert (abs(rest.mean(0)) < 5 * math.sqrt(variance / 500)).all()


X, TIMES = jnp.zeros((4, 4, 2)), jnp.asarray([5.0, 1.0, 0.0])
BAD = {
    "mask must have the image's shape": lambda: inpaint(
        Mixture(VE()), X, TIMES, mask=jnp.ones((4, 3), bool), key=jr.key(0)
    ),
    "jump must be at most the number of steps, 2: got 10": lambda: inpaint(
        Mixture(VE()), X, TIMES, mask=jnp.ones((4, 4), bool), key=jr.key(0)
    ),
    "share must be large enough for the times to differ: got 1e-12": lambda: strength(TIMES, 1e-12),
    "times must be at least three, two above 0: got 2": lambda: strength(TIMES[1:], 0.5),
    "levels must be at least 2: got 1": lambda: dequantised(X, 1, key=jr.key(0)),
    "repeats must be at least 1": lambda: path_of(10, 5, 0),
    "share must be in": lambda: strength(TIMES, 1.2),
    "iterations must be at least 1": lambda: invert(Mixture(VE()), X, TIMES, iterations=0),
    "times must be at least three": lambda: log_likelihood(Mixture(VE()), X, TIMES[1:]),
    "probes must be at least 1, with key=": lambda: log_likelihood(Mixture(VE()), X, TIMES, probes=2),
    "the small image must have the sides 4 x 4 divided by the same number, at least 2: got 2 x 1": lambda: NullSpace(
        Mixture(VE()), jnp.zeros((2, 1, 2))
    )(X, jnp.asarray(1.0)),
    "divided by the same number, at least 2: got 4 x 4": lambda: factor_of((4, 4), (4, 4)),
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


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_density_of_levels_has_the_bits_of_their_number(levels):
    """Every level equally likely: log2(levels) bits a number, for any number of levels."""
    x = np.linspace(-1, 1, levels, dtype=np.float32)
    wide = np.asarray(dequantised(jnp.asarray(x), levels, key=jr.key(0)))
    assert (np.abs(wide - x) <= 1 / (levels - 1)).all()
    density = -x.size * math.log(2 + 2 / (levels - 1))
    found = Likelihood(jnp.asarray(density), jnp.asarray(x), jnp.int32(0)).bits(levels)
    assert float(found) == pytest.approx(math.log2(levels), abs=1e-5)
