"""Streams of `eqxgen.metrics`: any split into batches and processes gives the numbers of the whole, in float64."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.metrics import (
    PSNR,
    Accuracy,
    CodeCounts,
    CrossEntropy,
    EditRate,
    Mean,
    Moments,
    edit_distance,
    frechet_distance,
    psnr,
)
from eqxgen.nn.quantize import count_codes, perplexity, usage

RNG = np.random.default_rng(0)
VALUES = (RNG.normal(size=997) * 1e3 + 1e6).astype(np.float32)
WEIGHTS = RNG.uniform(size=997).astype(np.float32)
GUESSES, LABELS = RNG.integers(0, 4, 997), RNG.integers(0, 4, 997)
FEATURES = (RNG.normal(size=(997, 5)) @ RNG.normal(size=(5, 5)) + 50).astype(np.float32)
OTHERS = (RNG.normal(size=(123, 5)) + 49).astype(np.float32)
ERRORS = RNG.uniform(1e-4, 1, 997).astype(np.float32)
IDS = RNG.integers(0, 50, (997, 3)).astype(np.int32)

WIDE = np.asarray(VALUES, np.float64)
SHARES = np.bincount(IDS.reshape(-1), minlength=64) / IDS.size

# Empty stream, arrays along the batch, number of it, and that number by a formula over all at once.
ROWS = {
    "mean": (Mean(), (VALUES,), Mean.result, np.mean(WIDE)),
    "weighted mean": (
        Mean(),
        (VALUES, WEIGHTS),
        Mean.result,
        np.average(WIDE, weights=np.asarray(WEIGHTS, np.float64)),
    ),
    "accuracy": (Accuracy(), (GUESSES, LABELS), Accuracy.result, np.mean(GUESSES == LABELS)),
    "cross-entropy": (CrossEntropy(), (ERRORS,), CrossEntropy.result, np.mean(ERRORS, dtype=np.float64)),
    "perplexity": (CrossEntropy(), (ERRORS,), CrossEntropy.perplexity, np.exp(np.mean(ERRORS, dtype=np.float64))),
    "psnr": (PSNR(), (ERRORS,), PSNR.result, np.mean(10 * np.log10(4 / np.asarray(ERRORS, np.float64)))),
    "squared error": (PSNR(), (ERRORS,), lambda s: s.error.result(), np.mean(ERRORS, dtype=np.float64)),
    "code usage": (CodeCounts.of(64), (IDS,), CodeCounts.usage, 50 / 64),
    "code perplexity": (
        CodeCounts.of(64),
        (IDS,),
        CodeCounts.perplexity,
        np.exp(-np.sum(SHARES[SHARES > 0] * np.log(SHARES[SHARES > 0]))),
    ),
    "feature mean": (Moments(), (FEATURES,), lambda s: s.mean, np.mean(FEATURES, axis=0, dtype=np.float64)),
    "covariance": (Moments(), (FEATURES,), Moments.covariance, np.cov(np.asarray(FEATURES, np.float64), rowvar=False)),
}


def streamed(empty, arrays, bounds):
    parts = zip(*(np.split(array, bounds) for array in arrays))
    return functools.reduce(lambda state, part: state.update(*part), parts, empty)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("bounds", [[], [1], [0, 250, 500, 996]], ids=["whole", "two", "uneven and empty"])
def test_batches_give_the_number_of_the_whole(name, bounds):
    empty, arrays, result, wanted = ROWS[name]
    np.testing.assert_allclose(result(streamed(empty, arrays, bounds)), wanted, rtol=1e-13)


@pytest.mark.parametrize("name", ROWS)
def test_merged_parts_give_the_number_of_the_whole_and_an_empty_part_changes_nothing(name):
    empty, arrays, result, wanted = ROWS[name]
    parts = [streamed(empty, [array[places] for array in arrays], []) for places in (slice(300), slice(300, None))]
    for merged in (
        parts[0].merge(parts[1]),
        parts[1].merge(parts[0]),
        empty.merge(parts[0]).merge(parts[1].merge(empty)),
    ):
        np.testing.assert_allclose(result(merged), wanted, rtol=1e-13)


def test_an_update_leaves_the_state_before_it_as_it_was():
    for empty, arrays, *_ in ROWS.values():
        before = streamed(empty, arrays, [])
        kept = [np.array(leaf) for leaf in before if not isinstance(leaf, tuple)]
        before.update(*(array[:7] for array in arrays))
        assert all(np.array_equal(a, b) for a, b in zip(kept, [x for x in before if not isinstance(x, tuple)]))


def test_float32_sums_of_sums_add_up_in_float64():
    total, weight = np.full(10**5, 1e6 + 0.5, np.float32), np.ones(10**5, np.float32)
    assert Mean().add(total[:4], weight[:4]).add(total[4:], weight[4:]).result() == pytest.approx(1e6 + 0.5, rel=1e-15)


def test_the_frechet_distance_of_streams_is_that_of_arrays_and_of_the_closed_form():
    streams = [streamed(Moments(), (rows,), [40, 41]) for rows in (FEATURES, OTHERS)]
    assert frechet_distance(*streams) == pytest.approx(frechet_distance(FEATURES, OTHERS), rel=1e-12)
    # Axis-aligned Gaussians: Σ (μ1 - μ2)² + (σ1 - σ2)².
    points = np.array([[1.0, 2], [-1, 2], [1, -2], [-1, -2]]) * np.sqrt(3 / 4)
    assert frechet_distance(points, points * 3 + [5, 0]) == pytest.approx(25 + 4 + 16, rel=1e-12)
    assert frechet_distance(FEATURES, FEATURES[::-1]) == pytest.approx(0, abs=1e-9)


def test_features_far_from_the_origin_keep_their_covariance():
    rows = RNG.normal(size=(1000, 3)) + 1e7
    np.testing.assert_allclose(
        streamed(Moments(), (rows,), [10, 500]).covariance(), np.cov(rows, rowvar=False), rtol=1e-7
    )


def test_counts_and_decibels_agree_with_those_of_a_compiled_step():
    counts = count_codes(jnp.asarray(IDS), 64)
    stream = CodeCounts.of(64).update(IDS)
    assert stream.usage() == pytest.approx(float(usage(counts)), rel=1e-6)
    assert stream.perplexity() == pytest.approx(float(perplexity(counts)), rel=1e-5)
    assert PSNR().update(ERRORS).result() == pytest.approx(float(jnp.mean(psnr(jnp.asarray(ERRORS)))), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Mean().result(), "a mean needs values of a positive weight: got none"),
        (lambda: Moments().update(FEATURES[:1]).covariance(), "a covariance needs at least 2 rows: got 1"),
        (lambda: Moments().update(np.array([[np.nan]])), "features must be finite"),
        (lambda: Moments().update(FEATURES).update(FEATURES[:, :3]), "features of one size: got 5 and 3"),
        (lambda: frechet_distance(FEATURES, Moments().update(FEATURES[:, :3])), "features of one size: got 5 and 3"),
        (lambda: frechet_distance(FEATURES, FEATURES[:1]), "a covariance needs at least 2 rows: got 997 and 1"),
        (lambda: CodeCounts.of(4).update(IDS), r"ids must be in \[0, 4\): got 0 to 49"),
    ],
)
def test_numbers_that_cannot_be_are_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    rest = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(rest, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


@pytest.mark.parametrize(("a", "b"), [("", ""), ("", "abc"), ("kitten", "sitting"), ("abab", "baba"), ("aab", "b")])
def test_an_edit_distance_is_that_of_the_definition(a, b):
    assert edit_distance(a, b) == edit_distance(b, a) == slow_distance(a, b)


def test_an_edit_rate_counts_the_nearest_reference():
    rate = EditRate().update([["K", "AE"], ["T"]], [[["K", "AE", "T"], ["K", "AE"]], [["D", "T"], ["D"]]])
    assert rate.result() == (0 + 1) / (2 + 2)
    assert rate.exact_match() == 0.5
    both = rate.merge(EditRate().update(["ab"], [["abcd"]]))
    assert both.result() == 3 / 8
    with pytest.raises(ValueError, match="references must be one or more for each of 1 guesses: got 1 lists"):
        EditRate().update(["a"], [[]])
