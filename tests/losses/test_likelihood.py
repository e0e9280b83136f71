"""Likelihoods of pixels and divergences of latents in closed form; perceptual distances; LeCam."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.adaptive import adaptive_weight
from eqxgen.losses.likelihood import (
    absolute_error,
    from_location,
    logit_laplace,
    squared_error,
    to_open_interval,
)
from eqxgen.losses.penalties import Anchors, lecam_penalty
from eqxgen.losses.perceptual import check_perceptual, perceptual_loss
from eqxgen.models import LPIPS, ConvNet, Inception


def test_the_errors_are_means_of_each_example_in_float32():
    first = jnp.arange(24, dtype=jnp.bfloat16).reshape(2, 3, 4)
    for error, expected in ((absolute_error, 2.0), (squared_error, 4.0)):
        found = error(first, first + 2)
        np.testing.assert_array_equal(found, [expected, expected])
        assert found.dtype == jnp.float32


def test_the_logit_laplace_density_integrates_to_one():
    x = np.linspace(0.1, 0.9, 4001)
    image = jnp.asarray(2 * (x - 0.1) / 0.8 - 1)[:, None]
    whole = np.linspace(1e-4, 1 - 1e-4, 20_001)  # beyond what an image can be
    wide = jnp.asarray(2 * (whole - 0.1) / 0.8 - 1, jnp.float32)[:, None]
    location, scale = 0.3, -0.4
    density = lambda image: np.exp(
        -np.asarray(logit_laplace(image, jnp.full_like(image, location), jnp.full_like(image, scale)))
    )
    assert np.trapezoid(density(wide), whole) == pytest.approx(1.0, abs=2e-3)
    best = x[np.argmax(density(image.astype(jnp.float32)) * x * (1 - x))]
    assert best == pytest.approx(1 / (1 + np.exp(-location)), abs=1e-3)


def test_an_image_comes_back_from_its_location():
    image = jnp.linspace(-1, 1, 7)
    x = to_open_interval(image)
    assert float(x[0]) == pytest.approx(0.1)
    np.testing.assert_allclose(from_location(jnp.log(x / (1 - x))), image, atol=1e-6)
    assert float(from_location(jnp.asarray(9.0))) == 1.0


class Own(eqx.Module):
    """A net that is a distance."""

    def maps(self, image):
        return [image]

    def __call__(self, first, second):
        return jnp.asarray(7.0)


def test_a_perceptual_loss_takes_a_distance_and_any_net_with_features():
    first, second = jr.uniform(jr.key(0), (2, 8, 8, 3), minval=-1, maxval=1)
    judge = ConvNet(3, 5, width=8, key=jr.key(2))
    assert perceptual_loss(Own(), first, second) == 7.0
    expected = jnp.mean((judge.features(first) - judge.features(second)) ** 2)
    np.testing.assert_allclose(perceptual_loss(judge, first, second), expected, rtol=1e-6)
    assert perceptual_loss(judge, first, first) == 0


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        ("lpips", (16, 40, 3), r"--perceptual must take images of \(16, 40, 3\).*x must be at least 31 pixels"),
        ("lpips", (40, 40, 1), r"--perceptual must take images of \(40, 40, 1\).*channels=3"),
        ("judge", (40, 40, 1), r"--perceptual must take images of \(40, 40, 1\)"),
        ("none", (40, 40, 3), r"--perceptual must take .*: net must be a distance with maps, or have features"),
    ],
)
def test_a_perceptual_net_refuses_images_that_it_cannot_take_in_one_line(net, shape, message):
    nets = {
        "lpips": lambda: eqx.filter_eval_shape(lambda: LPIPS("alex", key=jr.key(0))),
        "judge": lambda: ConvNet(3, 5, width=8, key=jr.key(0)),
        "none": lambda: jnp.zeros(3),
    }
    with pytest.raises(ValueError, match=message) as caught:
        check_perceptual(nets[net](), shape, "--perceptual")
    assert "\n" not in str(caught.value)


def test_inception_is_a_perceptual_net_by_its_features():
    net = eqx.filter_eval_shape(lambda: Inception(key=jr.key(0)))
    check_perceptual(net, (40, 40, 3))
    with pytest.raises(ValueError, match=r"^net must take images of \(40, 40, 1\)"):
        check_perceptual(net, (40, 40, 1))


def test_the_adaptive_weight_is_the_clamped_ratio_of_norms_without_a_gradient():
    big, small = jnp.full((2, 2), 3.0), jnp.full(4, 1.5)
    assert adaptive_weight(big, small, scale=0.5) == pytest.approx(0.5 * 6 / 3.0001)
    assert adaptive_weight(jnp.full(4, 10.0), jnp.zeros(3)) == pytest.approx(0.8 * 1e4)
    assert adaptive_weight(jnp.zeros(3), big) == 0
    assert not np.any(jax.grad(lambda x: adaptive_weight(x, small))(big))
    half = jnp.full(70_000, 200.0, jnp.float16)  # whose sum of squares float16 cannot hold
    assert adaptive_weight(half, half.astype(jnp.float32), scale=1.0) == pytest.approx(1.0, rel=1e-3)


def test_the_lecam_penalty_is_one_sided_about_averages_that_follow_the_logits():
    anchors = Anchors(jnp.asarray(0.5), jnp.asarray(-0.2))
    found = lecam_penalty(jnp.asarray([1.0, -1.0]), jnp.asarray([0.1, 0.9]), anchors)
    np.testing.assert_allclose(found, [1.2**2 + 0.4**2, 0.0], rtol=1e-6)
    moved = anchors.moved(jnp.asarray(1.5), jnp.asarray(-1.2), decay=0.9)
    np.testing.assert_allclose(moved, [0.6, -0.3], rtol=1e-6)
