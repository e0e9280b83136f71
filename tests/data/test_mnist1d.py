"""MNIST-1D beside the arrays of the published package."""

import numpy as np
import pytest

from tests import oracles
from train.data.mnist1d import SEQ, mnist1d


@pytest.mark.parametrize(("case", "count", "seed"), [("small", 100, 7), ("frozen", 5000, 42)])
def test_sequences_equal_the_packages_of_the_same_seed(case, count, seed):
    kept, made = oracles.load("mnist1d")[case], mnist1d(count, seed)
    assert made.train.shape == (count * 4 // 5, SEQ)
    np.testing.assert_array_equal(made.train_labels, kept["train_labels"])
    np.testing.assert_allclose(made.train[: len(kept["train"])], kept["train"], atol=1e-12)
    np.testing.assert_allclose(made.test[:20], kept["test"], atol=1e-12)


def test_all_values_have_mean_0_and_every_digit_is_as_frequent():
    made = mnist1d(200, 3, train=0.5)
    whole = np.concatenate([made.train, made.test])
    assert (float(whole.mean()), float(whole.std())) == pytest.approx((0, 1), abs=1e-12)
    assert np.bincount(np.concatenate([made.train_labels, made.test_labels])).tolist() == [20] * 10
    for values, says in (
        ((105, 0, 0.8), "count must be a multiple of 10"),
        ((100, 0, 1.0), r"train must be in \(0, 1\)"),
    ):
        with pytest.raises(ValueError, match=says):
            mnist1d(*values)
