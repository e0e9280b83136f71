"""Losses of image tokenizers in closed form, and the same whatever the number of devices."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.reconstruction import squared_error, tokenizer_losses
from eqxgen.nn.quantize import Quantized

ROWS, COLUMNS, CODES = 3, 2, 5


def quantized(assignment, distance=0.0, entropy=0.0):
    """A batch of what a quantiser gives; an assignment for each image."""
    n = len(assignment)
    grid = jnp.ones((n, ROWS, COLUMNS))
    vectors, ids = jnp.zeros((n, ROWS, COLUMNS, 4)), jnp.zeros((n, ROWS, COLUMNS), jnp.int32)
    return Quantized(vectors, ids, distance * grid, entropy * grid, assignment)


def losses(found, weight, *, total=lambda x: x, **weights):
    images = jnp.zeros((len(weight), 4, 3, 1))
    return tokenizer_losses(images, images + 0.5, found, weight, total=total, **weights)


def test_the_squared_error_is_the_mean_of_each_example_in_float32():
    first = jnp.arange(24, dtype=jnp.bfloat16).reshape(2, 3, 4)
    found = squared_error(first, first + 1)
    np.testing.assert_array_equal(found, [1.0, 1.0])
    assert found.dtype == jnp.float32


@pytest.mark.parametrize(
    ("assignment", "entropy", "expected"),
    [
        (jnp.full((CODES, CODES), 1 / CODES), np.log(CODES), 0.0),  # no latent is certain
        (jnp.eye(CODES), 0.0, -np.log(CODES)),  # each is certain, and all codes are equally frequent
        (jnp.eye(CODES)[jnp.zeros(CODES, int)], 0.0, 0.0),  # each is certain of the same code
    ],
)
def test_the_entropy_term_is_least_for_certain_latents_and_equal_codes(assignment, entropy, expected):
    found = losses(quantized(assignment, entropy=entropy), jnp.ones(CODES), quantisation=0.0, entropy=2.0)
    np.testing.assert_allclose(found.total, 0.25 + 2 * expected, atol=1e-5)
    np.testing.assert_allclose(found.squared_error, 0.25)


def test_the_distance_counts_by_its_weight():
    found = losses(quantized(jnp.eye(CODES), distance=3.0), jnp.ones(CODES), quantisation=0.5, entropy=0.0)
    np.testing.assert_allclose(found.total, 0.25 + 1.5)
    np.testing.assert_allclose(found.distance, 3.0)


def test_two_devices_and_an_uneven_batch_give_the_numbers_of_one():
    assignment = jax.nn.softmax(jr.normal(jr.key(0), (4, CODES)))
    one = losses(quantized(assignment[:3]), jnp.ones(3))
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), quantized(assignment))
    weight = jnp.asarray([[1.0, 1.0], [1.0, 0.0]])
    total = lambda x: jax.lax.psum(x, "devices")
    two = jax.vmap(lambda found, weight: losses(found, weight, total=total), axis_name="devices")(halves, weight)
    np.testing.assert_allclose(two.total.reshape(-1)[:3], one.total, rtol=1e-6)
