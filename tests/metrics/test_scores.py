"""Scores of features, images, labels and numbers against their definitions, written out in float64, and against
torchmetrics and scikit-learn.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from eqxgen.metrics import (
    SSIM,
    Confusion,
    FeatureRows,
    Features,
    Moments,
    Pearson,
    Recall,
    Spearman,
    Statistics,
    class_score,
    density_coverage,
    fidelity,
    frechet,
    frechet_distance,
    frechet_infinity,
    frechet_interval,
    kernel_distance,
    memorisation,
    nearest,
    neighbours,
    path_length,
    path_points,
    perceptual_distance,
    polynomial_mmd,
    precision_recall,
    ssim,
    weights_sha256,
)
from tests import oracles
from tests.full import full

RNG = np.random.default_rng(0)
FAKE, REAL = RNG.normal(size=(123, 5)) * [1, 2, 3, 1, 1] + 0.3, RNG.normal(size=(97, 5)) * [1, 2, 3, 1, 1]
JUDGE = Features("judge", "ab" * 32)
KEPT = oracles.load("metrics")


def rows(array, features=JUDGE):
    return FeatureRows(features=features).update(array)


def distances(a, b):
    return np.sqrt(np.sum((np.asarray(a)[:, None] - np.asarray(b)[None]) ** 2, axis=-1))


def radii(a, k):
    return np.sort(distances(a, a) + np.diag(np.full(len(a), np.inf)), axis=1)[:, k - 1]


@pytest.fixture(params=[(1024, 4096), (16, 7)], ids=["one block", "blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", request.param[0])
    monkeypatch.setattr(neighbours, "COLUMNS", request.param[1])


def test_neighbours_in_blocks_are_those_of_all_distances(blocks):
    found, places = nearest(FAKE, REAL, 4)
    wanted = distances(FAKE, REAL)
    np.testing.assert_allclose(found, np.sort(wanted, axis=1)[:, :4], rtol=1e-12)
    np.testing.assert_array_equal(places, np.argsort(wanted, axis=1)[:, :4])
    np.testing.assert_allclose(nearest(REAL, REAL, 3, leave_out_own=True)[0][:, -1], radii(REAL, 3), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_and_coverage_are_their_definitions(blocks, k):
    cross, real, fake = distances(REAL, FAKE), radii(REAL, k), radii(FAKE, k)
    precision = np.mean([any(cross[i, j] <= real[i] for i in range(97)) for j in range(123)])
    recall = np.mean([any(cross[i, j] <= fake[j] for j in range(123)) for i in range(97)])
    np.testing.assert_allclose(precision_recall(FAKE, REAL, k), [precision, recall], rtol=1e-12)
    inside = cross < real[:, None]
    np.testing.assert_allclose(
        density_coverage(FAKE, REAL, k), [inside.sum() / (k * 123), inside.any(axis=1).mean()], rtol=1e-12
    )
    assert 0 < precision < 1


def test_a_set_against_itself_has_full_precision_and_a_density_of_exactly_one(blocks):
    far = np.float32(REAL + 1e4)  # products of blocks alone would lose the differences
    assert precision_recall(far, far, 3) == (1, 1)
    assert density_coverage(far, far, 3) == (1, 1)
    assert np.all(nearest(far, far)[0] == 0)
    assert density_coverage(far + 1e3, far, 3) == (0, 0)


def mmd(x, y):
    k = lambda a, b: (a @ b / 5 + 1) ** 3
    within = lambda z: np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])
    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_the_kernel_distance_is_its_sums_over_pairs_and_its_error_covers_the_truth():
    assert polynomial_mmd(FAKE[:40], REAL[:31]) == pytest.approx(mmd(FAKE[:40], REAL[:31]), rel=1e-10)
    whole = kernel_distance(FAKE, REAL, subsets=2, size=97)
    assert np.isnan(whole.error)
    same, other = (
        kernel_distance(RNG.normal(size=(2000, 5)) + shift, RNG.normal(size=(2000, 5)), size=200) for shift in (0, 0.5)
    )
    assert abs(same.value) < 4 * same.error < 0.2
    assert other.value > 10 * other.error
    assert same.error == pytest.approx(same.deviation / np.sqrt(10), rel=1e-12)


def test_the_class_score_is_its_definition_in_each_split():
    logits = 3 * RNG.normal(size=(50, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    parts = [
        np.exp(np.mean([np.sum(p * np.log(p / part.mean(axis=0))) for p in part])) for part in np.array_split(shares, 3)
    ]
    np.testing.assert_allclose(class_score(logits, 3), [np.mean(parts), np.std(parts)], rtol=1e-12)
    sure = 1000 * np.eye(4)[np.arange(40) % 4]
    assert class_score(sure, 1).value == pytest.approx(4, rel=1e-12)
    assert class_score(np.zeros((20, 4)), 2) == (1, 0)


@pytest.mark.parametrize(
    ("case", "score", "answer"),
    [
        ("frechet", lambda first, second: frechet_distance(first, second), "value"),
        ("kernel", lambda first, second: polynomial_mmd(first, second), "value"),
        ("class score", lambda logits: class_score(logits, 1).value, "value"),
        ("ssim grey", lambda first, second: exact(ssim, first, second, reflect=True), "value"),
        ("ssim colour", lambda first, second: exact(ssim, first, second, reflect=True), "value"),
        ("labels", lambda guesses, labels: Confusion.of(4).update(guesses, labels).mcc(), "mcc"),
        ("correlation", lambda first, second: Spearman().update(first, second).result(), "spearman"),
        ("correlation", lambda first, second: Pearson().update(first, second).result(), "pearson"),
    ],
)
def test_scores_are_those_of_torchmetrics(case, score, answer):
    parts = {name: array for name, array in KEPT[case].items() if name not in ("value", "mcc", "spearman", "pearson")}
    assert score(**parts) == pytest.approx(float(KEPT[case][answer]), rel=1e-6)


def exact(function, *arrays, **options):
    with jax.enable_x64(True):
        return np.asarray(function(*map(jnp.asarray, arrays), **options))


def test_structural_similarity_is_its_definition_at_every_window():
    x, y = RNG.uniform(0, 255, (13, 15, 2)), RNG.uniform(0, 255, (13, 15, 2))
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.sum(np.outer(line, line))
    found = []
    for i in range(3):
        for j in range(5):
            for c in range(2):
                a, b = x[i : i + 11, j : j + 11, c], y[i : i + 11, j : j + 11, c]
                ma, mb = np.sum(weights * a), np.sum(weights * b)
                va, vb = np.sum(weights * (a - ma) ** 2), np.sum(weights * (b - mb) ** 2)
                cov = np.sum(weights * (a - ma) * (b - mb))
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                found.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert exact(ssim, x, y, data_range=255.0) == pytest.approx(np.mean(found), rel=1e-10)
    assert exact(ssim, x, x, data_range=255.0) == pytest.approx(1, rel=1e-12)
    single = ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), 255.0)
    assert float(single) == pytest.approx(np.mean(found), abs=1e-5)
    assert SSIM().update(np.array([0.5, 1.0])).merge(SSIM()).result() == 0.75


def test_the_perceptual_distance_is_the_sum_over_layers_of_weighted_differences_of_unit_vectors():
    shapes = [(5, 3, 4), (2, 2, 7)]
    a, b = ([RNG.normal(size=shape) for shape in shapes] for _ in range(2))
    heads = [RNG.uniform(size=shape[-1]) for shape in shapes]
    wanted = 0.0
    for one, two, head in zip(a, b, heads):
        unit = lambda v: v / (np.sqrt(np.sum(v**2)) + 1e-10)
        places = [(i, j) for i in range(one.shape[0]) for j in range(one.shape[1])]
        wanted += np.mean([np.sum(head * (unit(one[p]) - unit(two[p])) ** 2) for p in places])
    with jax.enable_x64(True):
        layers = [[jnp.asarray(x) for x in part] for part in (a, b, heads)]
        assert float(perceptual_distance(*layers)) == pytest.approx(wanted, rel=1e-10)
    nothing = [jnp.zeros((2, 2, 3))]
    slope = jax.grad(lambda maps: perceptual_distance(maps, [jnp.ones((2, 2, 3))], [jnp.ones(3)]))(nothing)
    assert np.isfinite(slope[0]).all()


def test_a_path_length_leaves_out_the_extremes_and_its_points_are_on_the_path():
    lengths = np.arange(200.0)
    assert path_length(lengths, epsilon=0.1).kept == 198
    assert path_length(lengths, epsilon=0.1, trim=0.0).value == pytest.approx(99.5 / 0.01, rel=1e-12)
    a, b, t = np.float32([[3, 0], [1, 0]]), np.float32([[0, 2], [1, 0]]), np.float32([0.5, 0.2])
    here, there = path_points(*map(jnp.asarray, (a, b, t)), epsilon=0.5)
    np.testing.assert_allclose(here, [[np.sqrt(0.5), np.sqrt(0.5)], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(there, [[0, 1], [1, 0]], atol=1e-6)
    line = path_points(*map(jnp.asarray, (a, b, t)), spherical=False)[0]
    np.testing.assert_allclose(line, [[1.5, 1], [1, 0]], atol=1e-6)


def test_labels_scores_are_those_of_scikit_learn_in_any_batches():
    guesses, labels = RNG.integers(0, 3, 101), RNG.integers(0, 4, 101)
    parts = [Confusion.of(6).update(guesses[part], labels[part]) for part in (slice(40), slice(40, None))]
    counts = parts[0].merge(parts[1])
    np.testing.assert_allclose(
        counts.f1(), f1_score(labels, guesses, average=None, labels=range(6), zero_division=0.0), rtol=1e-12
    )
    assert counts.macro_f1() == pytest.approx(f1_score(labels, guesses, average="macro", zero_division=0.0), rel=1e-12)
    assert counts.mcc() == pytest.approx(matthews_corrcoef(labels, guesses), rel=1e-12)
    assert counts.accuracy() == np.mean(guesses == labels)
    assert Confusion.of(2).update(np.ones(5, int), np.array([0, 1, 1, 0, 1])).mcc() == 0


@pytest.mark.parametrize("kind", [Pearson, Spearman])
def test_correlations_do_not_depend_on_batches(kind):
    a, b = KEPT["correlation"]["first"], KEPT["correlation"]["second"]
    parts = [kind().update(a[part], b[part]) for part in (slice(30), slice(30, 30), slice(30, None))]
    assert functools.reduce(lambda x, y: x.merge(y), parts).result() == pytest.approx(kind().update(a, b).result())
    assert kind().update(a, -a).result() == pytest.approx(-1, rel=1e-12)


def test_the_distance_of_fewer_rows_than_features_is_said_and_has_no_rounding_of_missing_directions():
    wide, other = RNG.normal(size=(6, 40)), RNG.normal(size=(90, 40))
    with pytest.warns(UserWarning, match="first: 6 rows of 40 features: the covariance has rank 5 at most"):
        found = frechet_distance(wide, other)
    centred = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (wide, other)]
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()  # |A Bᵀ|, the trace of the root
    shift = np.sum((wide.mean(axis=0) - other.mean(axis=0)) ** 2)
    wanted = shift + sum(np.sum(x**2) for x in centred) - 2 * cross
    assert found == pytest.approx(wanted, rel=1e-12)


def test_the_influence_of_a_row_is_what_the_distance_gains_by_it_and_gives_the_bootstraps_interval(monkeypatch):
    frechet = importlib.import_module("eqxgen.metrics.frechet")
    mixed = RNG.normal(size=(12, 12)) / 4
    samples, real = RNG.normal(size=(3000, 12)) @ mixed + 0.2, RNG.normal(size=(2000, 12)) @ (mixed + 0.1)
    two = frechet.statistics_of("real", real)
    influences = frechet._influences(two, frechet.statistics_of("samples", samples), samples, frechet._root(two))
    value, some = frechet_distance(samples, real), np.argsort(influences)[[0, 1500, -1]]
    gained = [frechet_distance(np.concatenate([samples, samples[i : i + 1]]), real) - value for i in some]
    np.testing.assert_allclose(gained, influences[some] / 3001, atol=1e-2 * np.abs(influences).max() / 3001)
    exact = frechet_interval(samples, real)
    monkeypatch.setattr(frechet, "_WIDE", 8)
    np.testing.assert_allclose(frechet_interval(samples, real), exact, atol=0.03 * (exact[1] - exact[0]))


def test_the_distance_to_infinity_and_its_interval_hold_the_truth_that_the_distance_itself_misses():
    near, far = RNG.normal(size=(1500, 20)), RNG.normal(size=(1500, 20)) + 0.1
    truth = Statistics(np.zeros(20), np.eye(20))
    for samples, exact_distance in ((near, 0.0), (far, 0.2)):
        low, high = frechet_interval(samples, truth, resamples=50)
        infinite = frechet_infinity(samples, truth)
        value = frechet_distance(samples, truth)
        assert low <= value <= high
        assert infinite.distances[-1] == pytest.approx(value, rel=1e-9)
        assert infinite.low <= infinite.value <= infinite.high
        assert abs(infinite.value - exact_distance) < 0.05
        assert infinite.slope > 0
        assert len(infinite.rows) == 15
    assert frechet_distance(near, truth) > 3 * abs(frechet_infinity(near, truth).value)


def test_a_training_copy_is_flagged_whole_or_in_part_and_new_data_is_not():
    training, held_out, new = (RNG.normal(size=(n, 8)).astype(np.float32) for n in (300, 300, 100))
    fresh, copy = memorisation(new, training, held_out), memorisation(training[:100], training, held_out)
    part = memorisation(np.concatenate([new, training[:30]]), training, held_out)
    assert not fresh.flagged
    assert fresh.ratio == pytest.approx(1, abs=0.15)
    assert fresh.near < 0.06
    assert (copy.ratio, copy.near, copy.authentic, copy.flagged) == (0, 1, 0, True)
    assert part.flagged
    wanted = distances(new, training)
    spacing = radii(training, 1)[wanted.argmin(axis=1)]
    assert fresh.authentic == pytest.approx(np.mean(wanted.min(axis=1) > spacing), rel=1e-12)


@full
def test_two_halves_of_real_data_give_the_floor_and_scores_carry_their_features():
    from sklearn.datasets import load_digits

    pixels = np.random.default_rng(1).permutation(load_digits().data[:, ::3] / 16)
    halves = rows(pixels[:600]), rows(pixels[600:1200]), rows(pixels[1200:])
    found = {score.name: score for score in fidelity(*halves, resamples=20)}
    assert all(score.features == JUDGE for score in found.values())
    noise = rows(RNG.uniform(size=(600, pixels.shape[1])))
    worse = {score.name: score for score in fidelity(noise, *halves[1:], resamples=20)}
    assert abs(found["fd_judge_infinity"].value) < found["fd_judge"].value < 0.05 < worse["fd_judge"].value
    assert abs(found["kid_judge"].value) < 4 * found["kid_judge"].error
    assert worse["kid_judge"].value > 10 * worse["kid_judge"].error
    for name in ("precision_judge", "recall_judge", "density_judge", "coverage_judge"):
        assert found[name].value > 0.85
        assert worse[name].value < 0.3
    assert found["memorisation_flagged_judge"].value == 0
    copied = fidelity(rows(pixels[1200:]), *halves[1:], resamples=20)
    assert copied[-1].name == "memorisation_flagged_judge"
    assert copied[-1].value == 1


def test_a_published_name_is_said_with_its_own_weights_alone():
    assert JUDGE.score("fd") == "fd_judge"
    assert Features("inception").score("fd") == "fd_inception"
    assert Features("inception", "6726825d" + "0" * 56).score("fd") == "FID"
    assert Features("inception", "ab" * 32).score("fd") == "fd_inception"
    assert Features("vgg", "397923af" + "0" * 56).score("lpips") == "LPIPS_vgg"
    assert Features("hed_vgg", "397923af" + "0" * 56).score("lpips") == "lpips_hed_vgg"
    score = frechet(rows(FAKE), rows(REAL, Features("judge")))
    assert score.features == JUDGE
    assert str(score).startswith("fd_judge ")
    assert "features judge (sha256 abababababab)" in str(score)
    one, two = ({"a": jnp.ones(3), "b": x} for x in (jnp.zeros(2), jnp.ones(2)))
    assert len({weights_sha256(one), weights_sha256(two), weights_sha256(one)}) == 2


NAN = np.where(np.arange(123)[:, None] == 7, np.nan, FAKE)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Moments().update(NAN), "features must be finite: got nan in row 7"),
        (lambda: rows(NAN), "rows must be finite: got nan in row 7"),
        (lambda: rows(FAKE).update(FAKE[:, :3]), "rows must have features of one size: got 5 and 3"),
        (lambda: rows(FAKE).merge(rows(FAKE, Features("vgg"))), r"got judge \(sha256 abababababab\) and vgg"),
        (lambda: frechet(rows(FAKE), rows(REAL, Features("judge", "c" * 64))), "both sets must have the same features"),
        (lambda: FeatureRows().result(), "rows must be seen before their result"),
        (lambda: precision_recall(FAKE, REAL, 97), "k must be at least 1 and below the number of real, 97: got 97"),
        (lambda: precision_recall(FAKE[:3], REAL, 3), "k must be at least 1 and below the number of samples, 3: got 3"),
        (
            lambda: density_coverage(FAKE, REAL[:, :2], 3),
            "samples and real must have features of one size: got 5 and 2",
        ),
        (lambda: density_coverage(NAN, REAL, 3), "samples must be finite: got nan in row 7"),
        (lambda: nearest(FAKE, REAL, 98), "k must be from 1 to 97"),
        (lambda: polynomial_mmd(FAKE, REAL[:1]), "second must be at least 2 rows: got 1"),
        (lambda: polynomial_mmd(FAKE, REAL[:, :2]), "first and second must have features of one size: got 5 and 2"),
        (lambda: kernel_distance(FAKE, REAL), "size must be from 2 to the rows of the smaller set, 97: got 1000"),
        (lambda: kernel_distance(FAKE, REAL, subsets=1, size=9), "subsets must be at least 2: got 1"),
        (lambda: class_score(FAKE, 124), "splits must be from 1 to the number of samples, 123: got 124"),
        (lambda: class_score(FAKE[:, :1], 1), "logits must be of at least 2 classes: got 1"),
        (
            lambda: frechet_infinity(FAKE[:20], REAL),
            "samples must be more than 20, features and sizes together: got 20",
        ),
        (lambda: frechet_infinity(FAKE, REAL, sizes=2), "sizes must be at least 3: got 2"),
        (lambda: frechet_interval(FAKE, REAL, resamples=1), "resamples must be at least 2: got 1"),
        (lambda: frechet_interval(FAKE, REAL, level=95.0), "level must be between 0 and 1: got 95"),
        (lambda: memorisation(FAKE, REAL, REAL), "held_out must not be in training"),
        (lambda: memorisation(FAKE, REAL, FAKE[:, :2]), "samples and held_out must have features of one size"),
        (lambda: path_length(np.array([-1.0])), "distances must be finite, at least 0"),
        (lambda: path_length(np.ones(3), trim=0.5), r"trim in \[0, 0.5\)"),
        (lambda: Confusion.of(1), "classes must be at least 2: got 1"),
        (lambda: Confusion.of(3).update(np.array([3]), np.array([0])), r"guesses must be in \[0, 3\): got 3 to 3"),
        (lambda: Confusion.of(3).update(np.array([1]), np.array([0.6])), "labels must be integers: got float64"),
        (lambda: Recall.at(1.5), "most must be one or more integers of at least 1"),
        (lambda: Recall.at(True), "most must be one or more integers of at least 1"),
        (lambda: Recall.at(1).merge(Recall.at(5)), r"other must be of k \(1,\): got \(5,\)"),
        (
            lambda: Recall.at(1).update(np.ones((2, 3)), np.ones((1, 3), bool)),
            "scores and right must be .*, of one shape",
        ),
        (lambda: Confusion.of(3).mcc(), "labels must be seen before their scores"),
        (lambda: Confusion.of(3).merge(Confusion.of(4)), "other must have 3 classes: got 4"),
        (lambda: Pearson().update(np.ones(5), np.arange(5)).result(), "needs values that differ"),
        (lambda: Spearman().update(np.ones(1), np.ones(1)).result(), "needs at least 2 pairs: got 1"),
        (lambda: Pearson().update(np.array([np.inf]), np.ones(1)), "first must be finite"),
        (lambda: ssim(jnp.ones((10, 20, 1)), jnp.ones((10, 20, 1))), "first must be at least as large as the window"),
        (lambda: ssim(jnp.ones((20, 20, 1)), jnp.ones((20, 20, 1)), 0.0), "data_range and sigma must be above 0"),
        (lambda: perceptual_distance([jnp.ones((2, 2, 3))], [], []), "must have as many layers each"),
        (
            lambda: perceptual_distance([jnp.ones((2, 2, 3))], [jnp.ones((2, 2, 3))], [jnp.ones(4)]),
            "maps and head of layer 0 must be",
        ),
    ],
)
def test_scores_that_cannot_be_are_one_line_that_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
