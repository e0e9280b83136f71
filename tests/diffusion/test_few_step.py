"""Losses of few steps on normal data, whose average velocity and consistency function are known."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion.few_step.consistency import consistency_loss, taught
from eqxgen.diffusion.few_step.meanflow import (
    few_step_sample,
    improved_meanflow_loss,
    meanflow_loss,
    total_derivative,
)
from eqxgen.diffusion.few_step.shortcut import shortcut_loss, shortcut_target
from eqxgen.diffusion.schedules import VE
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


@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_average_samples_the_data_in_any_number_of_steps(steps):
    z = jr.normal(jr.key(4), (4000,))
    found = few_step_sample(exact, z, jnp.linspace(1, 0, steps + 1))
    np.testing.assert_allclose(found, MEAN + DEVIATION * z, atol=1e-4)


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
