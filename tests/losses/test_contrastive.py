"""Contrastive losses of images and texts against their formulas, with equal captions and with padding."""

import math

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.contrastive import image_text_nce, sigmoid_bias, sigmoid_pairs

IMAGES, TEXTS = np.asarray(jr.normal(jr.key(0), (2, 5, 3)), np.float64)
SCALE, BIAS = 1.3, -0.7


def cosines(count):
    unit = lambda x: x[:count] / np.linalg.norm(x[:count], axis=1, keepdims=True)
    return unit(IMAGES) @ unit(TEXTS).T


def softmax(groups):
    """Mean of both directions, the targets shared evenly within a group."""
    count = len(groups)
    scores = math.exp(SCALE) * cosines(count)
    right = np.equal.outer(groups, groups)
    share = right / right.sum(axis=1, keepdims=True)
    one_way = lambda scores: np.log(np.exp(scores).sum(axis=1)) - (share * scores).sum(axis=1)
    return (one_way(scores) + one_way(scores.T)) / 2


def sigmoid(groups):
    logits = math.exp(SCALE) * cosines(len(groups)) + BIAS
    signs = np.where(np.equal.outer(groups, groups), 1, -1)
    return np.log1p(np.exp(-signs * logits)).sum(axis=1)


def called(loss, **options):
    numbers = (jnp.asarray(SCALE), jnp.asarray(BIAS)) if loss is sigmoid_pairs else (jnp.asarray(SCALE),)
    return loss(jnp.asarray(IMAGES, jnp.float32), jnp.asarray(TEXTS, jnp.float32), *numbers, **options)


@pytest.mark.parametrize(("loss", "formula"), [(image_text_nce, softmax), (sigmoid_pairs, sigmoid)])
def test_equal_captions_are_no_negatives_and_padding_counts_for_nothing(loss, formula):
    np.testing.assert_allclose(called(loss), formula(np.arange(5)), rtol=1e-5)
    groups = np.array([4, 7, 4, 4, 9])
    np.testing.assert_allclose(called(loss, group=jnp.asarray(groups)), formula(groups), rtol=1e-5)
    weight = jnp.asarray([1.0, 1, 1, 0, 0])
    found = called(loss, group=jnp.asarray(groups), weight=weight)
    np.testing.assert_allclose(found[:3], formula(groups[:3]), rtol=1e-5)
    assert np.isfinite(found).all()


def test_the_first_bias_is_the_odds_of_a_pair_in_a_batch():
    assert sigmoid_bias(4) == pytest.approx(math.log(0.25 / 0.75))
    assert sigmoid_bias(22_027) == pytest.approx(-10, abs=1e-4)
    with pytest.raises(ValueError, match="batch must be at least 2, as there are negatives: got 1"):
        sigmoid_bias(1)
