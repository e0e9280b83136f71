"""Losses of few steps on normal data, whose average velocity and consistency function are known."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import DiffusionLoss
from eqxgen.diffusion.few_step import pairs
from eqxgen.diffusion.few_step.consistency import consistency_loss, taught
from eqxgen.diffusion.few_step.meanflow import (
    guided_velocity,
    improved_meanflow_loss,
    meanflow_loss,
    total_derivative,
)
from eqxgen.diffusion.few_step.shortcut import shortcut_loss, shortcut_target
from eqxgen.diffusion.precondition import Average, WithGuide
from eqxgen.diffusion.schedules import VE, Flow
from eqxgen.diffusion.solvers import AverageVelocity, Consistency, Euler, prior, sample
from eqxgen.ops import dot_product_attention

MEAN, DEVIATION = 0.4, 0.3
T, R = jnp.float32(0.8), jnp.float32(0.3)


def spread(t):
    return jnp.sqrt((1 - t) ** 2 * DEVIATION**2 + t**2)


def velocity(z, t):
    share = ((1 - t) * -(DEVIATION**2) + t) / spread(t) ** 2
    return -MEAN + share * (z - (1 - t) * MEAN)


def exact(z, t, r, condition=None, *, key=None):
    """(z_t - z_r) / (t - r) of the path through z, by its closed form, and the velocity at r = t."""
    gap = jnp.where(t == r, 1.0, t - r)
    end = (1 - r) * MEAN + spread(r) / spread(t) * (z - (1 - t) * MEAN)
    return jnp.where(t == r, velocity(z, t), (z - end) / gap)


def test_the_exact_average_is_its_own_target_of_meanflow():
    z = jr.normal(jr.key(0), (40,))
    u, change = total_derivative(exact, z, T, R, velocity(z, T))
    np.testing.assert_allclose(velocity(z, T) - (T - R) * change, u, atol=2e-5)


@pytest.mark.parametrize("loss", [meanflow_loss, improved_meanflow_loss])
def test_the_exact_average_is_where_the_gradient_of_meanflow_is_zero(loss):
    x0 = MEAN + DEVIATION * jr.normal(jr.key(1), (20_000, 1))
    noise = jr.normal(jr.key(2), x0.shape)

    def gradients(scale):
        one = lambda scale, x0, noise: loss(
            lambda *args, **more: scale * exact(*args, **more), x0, T, R, noise=noise, power=0.0
        )
        return np.asarray(jax.jit(jax.vmap(jax.grad(one), (None, 0, 0)))(scale, x0, noise), np.float64)

    at, beyond = gradients(1.0), gradients(1.3)
    error = at.std() / np.sqrt(len(at))
    assert abs(at.mean()) < 4 * error
    assert beyond.mean() > 20 * error


def test_where_both_times_are_equal_meanflow_is_flow_matching():
    x0, noise = jr.normal(jr.key(3), (2, 6))
    z = (1 - T) * x0 + T * noise
    wanted = np.sum(np.square(np.asarray(velocity(z, T) - (noise - x0))))
    for loss in (meanflow_loss, improved_meanflow_loss):
        np.testing.assert_allclose(loss(exact, x0, T, T, noise=noise, power=0.0), wanted, rtol=1e-5)
        np.testing.assert_allclose(loss(exact, x0, T, T, noise=noise), wanted / (wanted + 1e-3), rtol=1e-5)
    np.testing.assert_allclose(shortcut_loss(exact, x0, T, T, noise=noise), wanted / 6, rtol=1e-5)


class Exact:
    """A denoiser whose average velocity is known."""

    schedule = Flow()

    def average(self, x, t, r, condition=None, *, key=None, inference=None):
        return exact(x, t, r)

    def __call__(self, x, t, condition=None, *, key=None, inference=None):
        return x - t * velocity(x, t)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_average_samples_the_data_in_any_number_of_steps(steps):
    z = jr.normal(jr.key(4), (4000,))
    found = sample(Exact(), z, jnp.linspace(1, 0, steps + 1), AverageVelocity())
    np.testing.assert_allclose(found.x, MEAN + DEVIATION * z, atol=1e-4)
    assert found.evaluations == steps


def test_a_sampler_of_average_velocities_refuses_a_model_of_one_time():
    with pytest.raises(ValueError, match="AverageVelocity needs an average velocity, which the denoiser lacks"):
        sample(Paths(), jnp.ones(3), jnp.linspace(1, 0, 2), AverageVelocity())


@pytest.mark.parametrize("times", [(80.0, 0.0), (80.0, 3.0, 0.5, 0.0)])
def test_the_ends_of_paths_sample_the_data_by_noise_drawn_anew(times):
    one = lambda key: (
        sample(Paths(end=True), prior(VE(), 80.0, (), key=key), jnp.array(times), Consistency(), key=key).x
    )
    found = np.asarray(jax.vmap(one)(jr.split(jr.key(11), 4000)))
    assert abs(found.mean() - MEAN) < 4 * DEVIATION / np.sqrt(len(found))
    assert abs(found.std() - DEVIATION) < 4 * DEVIATION / np.sqrt(2 * len(found))


def test_the_exact_average_is_consistent_with_its_halves_and_another_is_not():
    z = jr.normal(jr.key(5), (40,))
    np.testing.assert_allclose(shortcut_target(exact, z, T, R), exact(z, T, R), atol=1e-5)
    still = lambda z, t, r, condition=None, *, key=None: velocity(z, t)
    assert np.abs(np.asarray(shortcut_target(still, z, T, R) - still(z, T, R))).max() > 0.1


class Paths:
    """Variance-exploding diffusion of the data: its denoiser, or the end of the path through x."""

    schedule = VE()

    def __init__(self, end=False):
        self.end = end

    def __call__(self, x, t, condition=None, *, key=None, inference=None):
        share = DEVIATION**2 / (DEVIATION**2 + t**2)
        return MEAN + (jnp.sqrt(share) if self.end else share) * (x - MEAN)


def test_a_teacher_leads_along_its_path_and_the_ends_of_paths_are_consistent_there():
    x0, noise = MEAN + DEVIATION * jr.normal(jr.key(6), (30,)), jr.normal(jr.key(7), (30,))
    t, s = jnp.float32(0.7), jnp.float32(0.66)
    x = x0 + t * noise
    path = MEAN + np.sqrt((DEVIATION**2 + s**2) / (DEVIATION**2 + t**2)) * (x - MEAN)
    np.testing.assert_allclose(taught(Paths(), x, t, s), path, atol=2e-4)
    loss = lambda model: float(consistency_loss(model, x0, t, s, noise=noise, teacher=Paths()))
    assert loss(Paths(end=True)) < 0.002 < 0.1 < loss(Paths())


def test_consistency_has_no_gradient_through_its_target():
    x0, noise = jr.normal(jr.key(8), (2, 5))

    def loss(scale, level):
        class Scaled(Paths):
            def __call__(self, x, t, condition=None, *, key=None, inference=None):
                return jnp.where(t == level, scale, 1.0) * x

        return consistency_loss(Scaled(), x0, jnp.float32(2.0), jnp.float32(1.0), noise=noise)

    of_first, of_target = jax.grad(loss)(1.1, 2.0), jax.grad(loss)(1.1, 1.0)
    assert of_first != 0
    assert of_target == 0


def test_the_derivative_of_meanflow_goes_through_our_attention():
    weight = jr.normal(jr.key(9), (3, 8, 8)) / 3

    def average(z, t, r, condition=None, *, key=None):
        q, k, v = ((z @ w).reshape(-1, 2, 4) for w in weight)
        return dot_product_attention(q * (1 + t), k * (1 + r), v).reshape(z.shape)

    z, along = jr.normal(jr.key(10), (2, 7, 8))
    _, change = total_derivative(average, z, T, R, along)
    step = 1e-2
    moved = [average(z + side * step * along, T + side * step, R) for side in (1, -1)]
    np.testing.assert_allclose(change, (moved[0] - moved[1]) / (2 * step), atol=2e-3)


# A small average velocity of parameters (3, n, n) and (3, n), and the losses from their definitions in float64.
SIZE = 5
CASES = {"meanflow": meanflow_loss, "improved_meanflow": improved_meanflow_loss, "shortcut": shortcut_loss}


def net(xp, matrices, vectors, z, t, r, shift=0.0):
    inner = xp.tanh(matrices[0] @ z + t * vectors[0] + (t - r) ** 2 * vectors[1] + shift)
    return matrices[1] @ inner + (t - r) * (matrices[2] @ z) + vectors[2]


def defined(name, matrices, vectors, x0, noise, velocity, t, r, power, held):
    """The loss in float64 at some parameters, with everything that is held still at others."""
    z = (1 - t) * x0 + t * noise
    u = lambda z, t, r, at=held: net(np, *at, z, t, r)
    own = net(np, matrices, vectors, z, t, r)
    if name == "shortcut":
        half = (t + r) / 2
        first = u(z, t, half)
        target = (first + u(z - (t - half) * first, half, r)) / 2
        return np.mean((own - target) ** 2)
    along, h = velocity if name == "meanflow" else u(z, t, t), 1e-6
    change = (u(z + h * along, t + h, r) - u(z - h * along, t - h, r)) / (2 * h)
    residual = lambda u: u + (t - r) * change - velocity
    return np.sum(residual(own) ** 2) / (np.sum(residual(u(z, t, r)) ** 2) + 1e-3) ** power


@pytest.mark.parametrize("power", [0.0, 0.7])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_those_of_the_definition_in_float64(name, power):
    draw = np.random.default_rng(0)
    matrices, vectors = draw.normal(size=(3, SIZE, SIZE)) / 2, draw.normal(size=(3, SIZE)) / 2
    x0, noise, velocity = draw.normal(size=(3, SIZE))
    wide = lambda at: defined(name, *at, x0, noise, velocity, 0.8, 0.3, power, (matrices, vectors))

    def loss(parameters):
        average = lambda z, t, r, condition=None, *, key=None: net(jnp, *parameters, z, t, r)
        given = [jnp.asarray(x, jnp.float32) for x in (x0, noise, velocity)]
        more: dict[str, Any] = {} if name == "shortcut" else {"power": power}
        return CASES[name](average, given[0], T, R, noise=given[1], velocity=given[2], **more)

    value, (of_matrices, of_vectors) = jax.value_and_grad(loss)(
        (jnp.asarray(matrices, jnp.float32), jnp.asarray(vectors, jnp.float32))
    )
    np.testing.assert_allclose(value, wide((matrices, vectors)), rtol=2e-5)
    h = 1e-6
    for which, found in enumerate((of_matrices, of_vectors)):
        wanted = np.zeros(found.shape)
        for place in np.ndindex(found.shape):
            sides = []
            for sign in (1, -1):
                moved = [matrices.copy(), vectors.copy()]
                moved[which][place] += sign * h
                sides.append(wide(moved))
            wanted[place] = (sides[0] - sides[1]) / (2 * h)
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5 * np.abs(wanted).max())


def test_the_guided_velocity_is_the_mean_of_the_paper_and_has_no_gradient():
    average = lambda z, t, r, condition, *, key=None: condition * z
    z, v = jnp.float32(2.0), jnp.float32(0.5)
    guided = lambda condition: guided_velocity(average, z, T, v, condition, -1.0, scale=3.0, mix=0.25)
    weight = 3.0 * 0.75
    np.testing.assert_allclose(guided(1.5), weight * 0.5 + 0.25 * 3.0 + (1 - weight - 0.25) * -2.0, rtol=1e-6)
    assert jax.grad(guided)(1.5) == 0
    plain = guided_velocity(average, z, T, v, 1.5, -1.0, scale=1.0)
    np.testing.assert_allclose(plain, v, rtol=1e-6)


U = jr.uniform(jr.key(12), (3, 40_000), minval=1e-6, maxval=1 - 1e-6)


def test_two_times_of_meanflow_are_ordered_draws_of_which_a_share_is_equal():
    rules = DiffusionLoss(times="logit_normal", mean=-0.4, std=1.0)
    t, r = (np.asarray(x) for x in pairs.meanflow_times(U, rules, 0.75))
    assert (r <= t).all()
    assert abs((r == t).mean() - 0.75) < 0.01
    # The greater of two normals has the mean 1 / √π above theirs, the less as much below.
    logit = lambda x: np.log(x / (1 - x))
    assert abs(logit(t).mean() - (-0.4 + np.pi**-0.5)) < 0.02
    assert abs(logit(r[r < t]).mean() - (-0.4 - np.pi**-0.5)) < 0.04


def test_intervals_of_shortcut_are_powers_of_a_half_on_their_own_grid():
    t, r = (np.asarray(x, np.float64) for x in pairs.shortcut_times(U, 8, 0.75))
    apart = t > r
    assert abs(apart.mean() - 0.25) < 0.01
    lengths, counts = np.unique((t - r)[apart], return_counts=True)
    assert lengths.tolist() == [1 / 8, 1 / 4, 1 / 2, 1]
    assert (np.abs(counts / apart.sum() - 0.25) < 0.02).all()
    np.testing.assert_array_equal(t[apart] / (t - r)[apart] % 1, 0)
    assert sorted(set(t[~apart])) == [i / 16 for i in range(1, 17)]


def test_the_target_of_shortcut_is_made_of_intervals_that_are_trained():
    t, r = pairs.shortcut_times(U, 8, 0.5)
    trained, asked = set(np.unique(t - r).tolist()), set()

    def average(z, t, r, condition=None):
        asked.add(float(t - r))
        return z

    for interval in sorted(trained - {0.0}):
        shortcut_target(average, jnp.ones(2), jnp.float32(1.0), jnp.float32(1 - interval), shortest=1 / 8)
    assert trained == asked | {1.0} == {0.0, 1 / 8, 1 / 4, 1 / 2, 1.0}


def test_levels_of_consistency_are_drawn_with_the_weights_of_the_paper():
    from scipy.special import erf

    count = 12
    ends = (0.002 ** (1 / 7) + np.arange(count + 1) / count * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    wanted = np.diff(erf((np.log(ends) + 1.1) / (np.sqrt(2) * 2.0)))
    t, s = (np.asarray(x, np.float64) for x in pairs.consistency_times(U[0], count))
    place = np.abs(np.log(ends) - np.log(s)[:, None]).argmin(1)
    np.testing.assert_allclose(s, ends[place], rtol=1e-4)
    np.testing.assert_allclose(t, ends[place + 1], rtol=1e-4)
    assert np.abs(np.bincount(place, minlength=count) / len(s) - wanted / wanted.sum()).max() < 0.01


@pytest.mark.parametrize(
    ("step", "levels"), [(0, 10), (124, 10), (125, 20), (500, 160), (874, 640), (875, 1280), (5000, 1280)]
)
def test_the_number_of_levels_doubles_at_even_distances(step, levels):
    assert pairs.levels_at(step, 1000, 10, 1280) == levels


class Told:
    """A network that gives back what it is told."""

    guide = True

    def __call__(self, x, time, label, *, span, guide, key=None, inference=None):
        return jnp.stack([time, span, *guide])


def test_a_network_of_an_average_is_told_time_interval_and_guidance():
    denoiser = Average(Told())
    plain = denoiser.average(jnp.ones(5), T, R, 3)
    np.testing.assert_allclose(plain, [800, 500, 0, 0, 1000], rtol=1e-6)
    guided = denoiser.average(jnp.ones(5), T, R, WithGuide(3, jnp.float32(2.0), jnp.array([0.1, 0.9])))
    np.testing.assert_allclose(guided, [800, 500, 1000 * np.log(2), 100, 900], rtol=1e-6)


def test_an_average_is_a_denoiser_by_its_velocity():

    def told(x, time, label, *, span, key=None, inference=None):
        t = time / 1000
        return jnp.where(span == 0, velocity(x, t), exact(x, t, t - span / 1000))

    flow = Average(told)
    x = jr.normal(jr.key(13), (7,))
    np.testing.assert_allclose(flow(x, T, None), x - T * velocity(x, T), atol=1e-5)
    found = sample(flow, x, jnp.linspace(1, 0, 201), Euler())
    np.testing.assert_allclose(found.x, MEAN + DEVIATION * x, atol=0.02)
