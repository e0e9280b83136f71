"""Losses of image tokenizers in closed form, and the same whatever the number of devices."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.reconstruction import Assigned, squared_error, tokenizer_losses
from eqxgen.nn.quantize import Quantized

ROWS, COLUMNS, CODES = 3, 2, 5


def quantized(assignment, distance=0.0, entropy=0.0):
    """A batch of what a quantiser gives; an assignment for each image."""
    n = len(assignment)
    grid = jnp.ones((n, ROWS, COLUMNS))
    vectors, ids = jnp.zeros((n, ROWS, COLUMNS, 4)), jnp.zeros((n, ROWS, COLUMNS), jnp.int32)
    return Quantized(vectors, ids, distance * grid, entropy * grid, assignment)


def losses(found, weight, *, whole=None, **weights):
    whole = Assigned.of(found, weight) if whole is None else whole
    return tokenizer_losses(jnp.full(len(weight), 0.25), found, whole, **weights)


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


def test_the_distance_counts_by_its_weight():
    found = losses(quantized(jnp.eye(CODES), distance=3.0), jnp.ones(CODES), quantisation=0.5, entropy=0.0)
    np.testing.assert_allclose(found.total, 0.25 + 1.5)
    np.testing.assert_allclose(found.distance, 3.0)


def entropy_loss(logits, weight, whole=None):
    """Sum over some images of the entropy term, from logits of their assignments."""
    soft = jax.nn.softmax(logits)
    found = quantized(jnp.mean(soft, axis=1))
    certainty = -jnp.sum(soft * jnp.log(soft), axis=-1)
    found = found._replace(entropy=certainty[:, :, None] * jnp.ones((1, 1, COLUMNS)))
    return weight @ losses(found, weight, whole=whole, entropy=1.0).total, Assigned.of(found, weight)


def test_parts_of_a_batch_give_the_loss_and_the_gradient_of_the_whole_of_any_stages():
    logits, weight = jr.normal(jr.key(0), (4, ROWS, CODES)), jnp.asarray([1.0, 1.0, 1.0, 0.0])
    direct = lambda logits: (
        3 * (0.25 - _entropy(jnp.mean(jax.nn.softmax(logits[:3]), axis=(0, 1))))
        + jnp.sum(jax.vmap(jax.vmap(lambda row: _entropy(jax.nn.softmax(row))))(logits[:3])) / ROWS
    )
    whole = entropy_loss(logits, weight)[1]
    parts = lambda logits: sum(entropy_loss(logits[i : i + 2], weight[i : i + 2], whole)[0] for i in (0, 2))
    (loss, slope), (wanted, right) = (jax.value_and_grad(f)(logits) for f in (parts, direct))
    assert loss == pytest.approx(float(wanted), abs=1e-5)
    np.testing.assert_allclose(slope, right, atol=1e-7)
    assert np.abs(right).max() > 1e-3


def test_the_stages_of_a_residual_quantiser_count_alike():
    assignment = jax.nn.softmax(jr.normal(jr.key(0), (4, 2, CODES)))
    found = losses(quantized(assignment), jnp.ones(4), entropy=1.0, quantisation=0.0).total
    each = [losses(quantized(assignment[:, i]), jnp.ones(4), entropy=1.0, quantisation=0.0).total for i in range(2)]
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, rtol=1e-6)


def _entropy(p):
    return -jnp.sum(p * jnp.log(p))
