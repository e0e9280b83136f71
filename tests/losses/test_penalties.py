"""Penalties of gradients against closed forms, and finite differences in float64."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.augment.differentiable import diff_augment
from eqxgen.losses.penalties import between, one_centred, path_lengths, path_penalty, slopes, zero_centred
from eqxgen.models.gan.modulated import modulated_convolution

KEY = jr.key(0)


def test_penalties_of_a_quadratic_form_are_those_of_its_slope():
    matrix, x = jr.normal(KEY, (5, 5)), jr.normal(jr.key(1), (3, 5))
    judge = lambda x: (jnp.einsum("ni,ij,nj->n", x, matrix, x), "beside")
    logits, beside, gradient = slopes(judge, x)
    slope = np.asarray(x) @ np.asarray(matrix + matrix.T)
    np.testing.assert_allclose(logits, np.einsum("ni,ij,nj->n", x, matrix, x), rtol=1e-4)
    assert beside == "beside"
    np.testing.assert_allclose(gradient, slope, rtol=1e-5)
    np.testing.assert_allclose(zero_centred(gradient), (slope**2).sum(1) / 2, rtol=1e-5)
    np.testing.assert_allclose(one_centred(gradient), (np.linalg.norm(slope, axis=1) - 1) ** 2, rtol=1e-4)
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(one_centred(x)))(jnp.zeros((2, 3)))).all()
    np.testing.assert_allclose(between(x, -x, jnp.asarray([0.0, 0.5, 1.0])), [x[0], 0 * x[0], -x[2]], atol=1e-6)


def test_the_penalty_of_half_precision_is_summed_in_float32():
    assert zero_centred(jnp.ones((1, 70_000), jnp.float16))[0] == 35_000


def test_the_penalty_is_of_the_images_before_the_augmentation():
    images, direction = jr.normal(KEY, (2, 8, 8, 1)), jr.normal(jr.key(1), (8, 8, 1))
    parts = ("translation", "cutout")
    moved = lambda image, key: diff_augment(image, parts, key=key)
    judge = lambda images: (jnp.einsum("nhwc,hwc->n", jax.vmap(moved)(images, jr.split(KEY, 2)), direction), None)
    gradient = slopes(judge, images)[2]
    for found, key in zip(gradient, jr.split(KEY, 2)):
        own = jax.linear_transpose(lambda image, key=key: moved(image, key), images[0])(direction)[0]
        np.testing.assert_allclose(found, own, atol=1e-6)
        assert 0 < float(jnp.sum(jnp.abs(found))) < float(jnp.sum(jnp.abs(direction)))


def test_the_path_length_of_a_linear_synthesis_is_that_of_its_transpose():
    matrix, noise = jr.normal(KEY, (2, 3, 4, 4, 2)), jr.normal(jr.key(1), (5, 4, 4, 2))
    synthesis = lambda styles: jnp.einsum("nld,ldhwc->nhwc", styles, matrix)
    lengths = path_lengths(synthesis, jnp.ones((5, 2, 3)), noise)
    pulled = np.einsum("nhwc,ldhwc->nld", noise, matrix) / 4
    np.testing.assert_allclose(lengths, np.sqrt((pulled**2).sum(2).mean(1)), rtol=1e-5)
    losses, mean = path_penalty(lengths, jnp.asarray(2.0), jnp.mean(lengths))
    assert mean == pytest.approx(float(2 + 0.01 * (jnp.mean(lengths) - 2)), rel=1e-6)
    np.testing.assert_allclose(losses, (lengths - mean) ** 2, rtol=1e-5)


LAYERS = {
    "convolution": (lambda key: nn.Convolution(4, 4, key=key), (6, 6, 4)),
    "depthwise convolution": (lambda key: nn.Convolution(4, 4, groups=4, key=key), (6, 6, 4)),
    "transposed convolution": (lambda key: nn.ConvolutionTranspose(4, 3, kernel=4, stride=2, key=key), (4, 4, 4)),
    "blur": (lambda key: nn.BlurPool(), (6, 6, 4)),
    "group norm": (lambda key: nn.GroupNorm(4, groups=2), (5, 5, 4)),
    "layer norm": (lambda key: nn.LayerNorm(8), (5, 8)),
    "RMS norm": (lambda key: nn.RMSNorm(8), (5, 8)),
    "attention": (lambda key: nn.SelfAttention(8, heads=2, key=key), (5, 8)),
    "modulated convolution": (
        lambda key: lambda x: modulated_convolution(x[..., :4], jnp.ones((3, 3, 4, 3), x.dtype), x[0, 0, :4] + 2),
        (6, 6, 4),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_slope_of_a_penalty_is_its_finite_difference_in_float64(name):
    make, shape = LAYERS[name]
    with jax.enable_x64(True):
        layer = make(KEY)
        wide = lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x
        layer = jax.tree.map(lambda x: wide(x) if isinstance(x, jax.Array) else x, layer)
        x, towards = jr.normal(KEY, shape, jnp.float64), jr.normal(jr.key(1), shape, jnp.float64)
        judge = lambda x: jnp.sum(jnp.sin(layer(x)) * jnp.arange(1.0, 1 + layer(x).size).reshape(layer(x).shape))
        penalty = jax.jit(lambda t: jnp.sum(jax.grad(judge)(x + t * towards) ** 2) / 2)
        step = 1e-4
        difference = (penalty(step) - penalty(-step)) / (2 * step)
        slope = jax.jit(jax.grad(penalty))(0.0)
        assert slope == pytest.approx(float(difference), rel=1e-5)
        assert slope != 0
