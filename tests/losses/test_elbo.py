"""Bounds of the likelihood against closed forms: a linear Gaussian model whose likelihood and bound are known."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.elbo import importance_weighted_nll, merged, negative_elbo, running
from eqxgen.nn.distributions import LOG_VARIANCE, Bernoulli, DiagonalGaussian, LogitLaplace, squeezed
from tests.full import full

SLOPES, NOISE = np.array([1.5, -0.7, 0.2]), 0.4
X = np.array([0.9, -1.3, 0.5])


class Linear(eqx.Module):
    """x = slopes · z + noise, entry by entry, and a posterior that is off its mean and its deviation."""

    shift: jax.Array
    stretch: jax.Array

    def encode(self, x):
        precision = 1 + SLOPES**2 / NOISE**2
        mean = jnp.asarray(SLOPES / NOISE**2 / precision, x.dtype) * x
        log_variance = jnp.asarray(-np.log(precision), x.dtype) + jnp.zeros_like(x)
        return DiagonalGaussian(mean + self.shift.astype(x.dtype), log_variance + self.stretch.astype(x.dtype))

    def log_likelihood(self, x, z):
        mean = jnp.asarray(SLOPES, z.dtype) * z
        return DiagonalGaussian(mean, jnp.full_like(mean, 2 * math.log(NOISE))).log_prob(x)


EXACT = Linear(jnp.zeros(3), jnp.zeros(3))
OFF = Linear(jnp.array([0.3, -0.2, 0.4]), jnp.array([0.5, -0.6, 0.3]))
VARIANCE = SLOPES**2 + NOISE**2
NLL = 0.5 * float(np.sum(X**2 / VARIANCE + np.log(2 * np.pi * VARIANCE)))


def closed_elbo(model):
    """-log p(x) + KL(q || p(z | x)), in float64."""
    precision = 1 + SLOPES**2 / NOISE**2
    shift, stretch = (np.asarray(x, np.float64) for x in (model.shift, model.stretch))
    return NLL + 0.5 * float(np.sum(shift**2 * precision + np.exp(stretch) - 1 - stretch))


@functools.partial(jax.jit, static_argnums=(2, 3))
def mean_nll(model, x, samples, draws):
    keys = jr.split(jr.key(3), draws)
    found = jax.vmap(lambda key: importance_weighted_nll(model, x, samples, key=key))(keys)
    return jnp.mean(found), jnp.std(found) / math.sqrt(draws)


def test_the_divergence_is_its_integral_in_float64():
    mean, log_variance = np.array([0.7, -1.2]), np.array([-0.9, 0.4])
    grid = np.linspace(-12, 12, 40_001)
    expected = 0.0
    for m, v in zip(mean, np.exp(log_variance)):
        q = np.exp(-((grid - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
        ratio = -((grid - m) ** 2) / (2 * v) - 0.5 * np.log(v) + grid**2 / 2
        expected += float(np.sum(q * ratio) * (grid[1] - grid[0]))
    found = DiagonalGaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32)).divergence()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert DiagonalGaussian(jnp.zeros(3), jnp.zeros(3)).divergence() == 0


def test_the_elbo_is_its_closed_form_and_beta_weighs_its_divergence():
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        keys = jr.split(jr.key(0), 20_000)
        found = jax.jit(jax.vmap(lambda key: negative_elbo(OFF, x, key=key)))(keys)
        assert found.total.dtype == jnp.float64
        np.testing.assert_allclose(found.total.mean(), closed_elbo(OFF), atol=4 * found.total.std() / 141)
        half = negative_elbo(OFF, x, beta=0.5, key=keys[0])
        np.testing.assert_allclose(half.total, found.reconstruction[0] + 0.5 * found.divergence[0], rtol=1e-12)
    for beta in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="beta must be at least 0 and finite: got"):
            negative_elbo(OFF, jnp.asarray(X, jnp.float32), beta=beta, key=jr.key(0))


def test_with_the_exact_posterior_every_number_of_draws_gives_the_likelihood():
    x = jnp.asarray(X, jnp.float32)
    for samples in (1, 60):
        np.testing.assert_allclose(mean_nll(EXACT, x, samples, 5)[0], NLL, rtol=1e-6)


def test_one_draw_is_the_elbo_and_more_draws_come_nearer_to_the_likelihood():
    x = jnp.asarray(X, jnp.float32)
    means, errors = zip(*(mean_nll(OFF, x, samples, 4000) for samples in (1, 4, 32)))
    assert abs(means[0] - closed_elbo(OFF)) < 4 * errors[0]
    assert means[0] > means[1] + 4 * errors[0] > means[2] + 4 * errors[1]
    assert means[2] > NLL - 4 * errors[2]
    assert means[2] - NLL < 0.1


def test_neither_value_nor_gradient_depends_on_the_chunk():
    x = jnp.asarray(X, jnp.float32)

    @functools.partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def both(model, chunk):
        return importance_weighted_nll(model, x, 7, chunk=chunk, key=jr.key(1))

    value, gradient = both(OFF, 50)
    for chunk in (1, 3):
        other, slope = both(OFF, chunk)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(gradient)):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_the_logarithm_of_a_mean_of_exponentials_is_exact_far_from_zero():
    weights = np.array([-1e5, -1e5 + 2.0, -1e5 - 700.0, -1e5 + 1.0])
    peak, total = merged(running(jnp.asarray(weights[:1], jnp.float32)), running(jnp.asarray(weights[1:], jnp.float32)))
    np.testing.assert_allclose(peak + 1e5, 2.0)
    np.testing.assert_allclose(total, np.sum(np.exp(weights - weights.max())), rtol=1e-6)


@pytest.mark.parametrize(("samples", "chunk", "name"), [(0, 5, "samples"), (5, 0, "chunk")])
def test_no_draws_are_an_error(samples, chunk, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1: got 0"):
        importance_weighted_nll(OFF, jnp.asarray(X, jnp.float32), samples, chunk=chunk, key=jr.key(0))


def test_log_densities_are_their_formulas_and_sum_in_float32():
    rng = np.random.default_rng(0)
    x, first, second = rng.uniform(-1, 1, (3, 5)), rng.normal(size=(3, 5)), 0.3 * rng.normal(size=(3, 5))
    f32 = lambda a: jnp.asarray(a, jnp.float32)
    ones = (x + 1) / 2
    bernoulli = np.sum(-ones * np.log1p(np.exp(-first)) - (1 - ones) * np.log1p(np.exp(first)))
    np.testing.assert_allclose(Bernoulli(f32(first)).log_prob(f32(x)), bernoulli, rtol=1e-6)
    gaussian = np.sum(-0.5 * ((x - first) ** 2 / np.exp(second) + second + np.log(2 * np.pi)))
    np.testing.assert_allclose(DiagonalGaussian(f32(first), f32(second)).log_prob(f32(x)), gaussian, rtol=1e-6)
    half = Bernoulli(jnp.zeros(3000, jnp.bfloat16)).log_prob(jnp.ones(3000, jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, -3000 * math.log(2), rtol=1e-5)


def test_the_density_of_the_logit_laplace_is_one_in_all():
    value = np.linspace(0, 1, 200_002)[1:-1]
    pixels = jnp.asarray((value - 0.1) / 0.4 - 1, jnp.float32)
    np.testing.assert_allclose(squeezed(pixels), value, atol=1e-6)
    one = LogitLaplace(jnp.asarray(0.4), jnp.asarray(-0.3))
    density = np.exp(np.asarray(jax.vmap(one.log_prob)(pixels), np.float64))
    np.testing.assert_allclose(np.sum(density) / 200_000, 1, atol=2e-3)
    assert LogitLaplace(jnp.full(2, 9.0), jnp.zeros(2)).image().max() == 1


@full
def test_moments_of_a_net_are_bounded():
    found = DiagonalGaussian.of(jnp.array([1.0, 2.0, 1e6, -1e6]))
    np.testing.assert_array_equal(found.mean, [1, 2])
    np.testing.assert_array_equal(found.log_variance, [LOG_VARIANCE[1], LOG_VARIANCE[0]])
    np.testing.assert_array_equal(LogitLaplace.of(jnp.array([0.0, 50.0])).log_scale, [7.0])
