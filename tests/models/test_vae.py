"""The variational autoencoder: published sizes, its likelihoods, bias at the mean of data, inputs that cannot be."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import VAEConfig
from eqxgen.models import VAE
from eqxgen.nn.distributions import Bernoulli, DiagonalGaussian, LogitLaplace

TINY = VAEConfig(hidden=(6,), latent_dim=3)
CONVOLVED = VAEConfig(hidden=(5,), latent_dim=3, channels=(4, 6), activation="leaky_relu")
KINDS = {"bernoulli": Bernoulli, "gaussian": DiagonalGaussian, "logit_laplace": LogitLaplace}


def made(config=TINY, height=8, width=4):
    return VAE(height, width, 2, config, key=jr.key(0))


def size(config):
    shapes = eqx.filter_eval_shape(lambda: VAE(28, 28, 1, config, key=jr.key(0)))
    return sum(x.size for x in jax.tree.leaves(shapes) if isinstance(x, jax.ShapeDtypeStruct))


def test_presets_have_the_published_sizes():
    assert size(VAEConfig()) == 784 * 400 + 400 + 400 * 40 + 40 + 20 * 400 + 400 + 400 * 784 + 784
    encoder = 785 * 200 + 201 * 200 + 201 * 100
    assert size(VAEConfig.iwae()) == encoder + 51 * 200 + 201 * 200 + 201 * 784
    convolved = (9 + 1) * 32 + (9 * 32 + 1) * 64 + 3137 * 16 + 17 * 4
    assert size(VAEConfig.pax()) == convolved + 3 * 1568 + (288 + 1) * 64 + (576 + 1) * 32 + 289


@eqx.filter_jit
def everything(model, image):
    """The posterior, the pixels of its mean, their log-density, and an image that is the last bias alone."""
    posterior = model.encode(image)
    silent = eqx.tree_at(lambda m: m.decoder.head.weight, model, jnp.zeros_like(model.decoder.head.weight))
    alone = silent.with_mean(0.9 * image).decode(posterior.mean)
    return posterior, model.pixels(posterior.mean), model.log_likelihood(image, posterior.mean), alone


@pytest.mark.parametrize(
    ("base", "likelihood"),
    [
        (TINY, "bernoulli"),
        (TINY, "gaussian"),
        (TINY, "logit_laplace"),
        (CONVOLVED, "bernoulli"),
        (CONVOLVED, "gaussian"),
    ],
)
def test_each_likelihood_is_a_distribution_of_the_image_and_starts_at_its_mean(base, likelihood):
    model = made(dataclasses.replace(base, likelihood=likelihood))
    image = jnp.tanh(jr.normal(jr.key(1), (8, 4, 2)))
    posterior, pixels, density, alone = everything(model, image)
    assert posterior.mean.shape == posterior.log_variance.shape == (3,)
    assert isinstance(pixels, KINDS[likelihood])
    assert pixels.image().shape == (8, 4, 2)
    np.testing.assert_allclose(density, pixels.log_prob(image), rtol=1e-5)
    mean = 0.9 * np.asarray(image)
    wanted = mean if base is TINY else np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)
    np.testing.assert_allclose(alone, wanted, atol=1e-5)


def test_a_call_decodes_a_draw_with_a_key_and_the_mean_without():
    model, image, key = made(), jnp.zeros((8, 4, 2)), jr.key(1)
    posterior = model.encode(image)
    np.testing.assert_array_equal(model(image)[0], model.decode(posterior.mean))
    np.testing.assert_array_equal(model(image, key=key)[0], model.decode(posterior.sample(key=key)))
    np.testing.assert_array_equal(model.sample(key=key), model.decode(jr.normal(key, (3,))))


def test_latents_of_a_large_net_stay_finite():
    loud = eqx.tree_at(lambda m: m.encoder.head.bias, made(), jnp.full(6, 1e4))
    found, posterior = loud(jnp.zeros((8, 4, 2)), key=jr.key(0))
    assert posterior.log_variance.max() == 20
    assert jnp.isfinite(found).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: made().encode(jnp.zeros((4, 8, 2))), r"image must be \(height=8, width=4, channels=2\): got shape"),
        (lambda: made(CONVOLVED, width=6), "factor must divide width: got width=6, factor=4"),
        (lambda: made(height=0), "height must be an integer of at least 1: got 0"),
        (lambda: VAEConfig(hidden=(0,)), r"model.hidden must be integers of at least 1: got \(0,\)"),
        (lambda: VAEConfig(channels=(4, 0)), "model.channels must be integers of at least 1"),
        (lambda: VAEConfig(latent_dim=0), "model.latent_dim must be at least 1: got 0"),
        (lambda: VAEConfig(activation="gelu"), "model.activation must be one of relu, tanh, leaky_relu: got 'gelu'"),
        (lambda: VAEConfig(likelihood="laplace"), "model.likelihood must be one of bernoulli, gaussian"),
    ],
)
def test_what_cannot_be_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()
