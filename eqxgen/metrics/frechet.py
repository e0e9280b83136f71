"""The Fréchet distance between two sets of features."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import FeatureRows, Features, checked, one_width
from eqxgen.metrics.gaussian import Statistics
from eqxgen.metrics.moments import Moments

FeatureSet = Float[np.ndarray, "_ _"] | Moments | Statistics | FeatureRows
"""Features, or the `Moments` or `Statistics` of them."""

_SIZES = 15
_WIDE, _PART = 512, 4096  # features above which an interval is of first order; rows that are taken at a time


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


def frechet_distance(first: FeatureSet, second: FeatureSet, warn: Callable[[str], object] = _warn) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of the Gaussians with the features' means and covariances, in float64.

    It is the FID of Heusel et al. 2017 (arXiv:1706.08500) only where the features are that paper's Inception pool; with
    any others, name them: see `frechet`. Covariances divide by n - 1. The square root's trace is the sum of the square
    roots of the eigenvalues of Σ1^½ Σ2 Σ1^½, which are real and not negative; of these there are as many as the smaller
    rank. With spatial features it is the form of sFID (Nash et al. 2021, arXiv:2103.03841).

    Args:
        first: features, or the `Moments` or `Statistics` of features that came batch by batch.
        second: likewise.
        warn: takes a line about a set that has no more rows than features, so that its covariance is singular; by
            default it is a `UserWarning`.

    Raises:
        ValueError: fewer than two rows, widths that differ, or features that are not finite.
    """
    first, second = _gathered("first", first), _gathered("second", second)
    counts = [each.rows for each in (first, second)]
    if any(isinstance(each, Moments) and each.rows < 2 for each in (first, second)):
        raise ValueError(f"a covariance needs at least 2 rows: got {counts[0]} and {counts[1]}")
    one, two = statistics_of("first", first), statistics_of("second", second)
    if len(one.mean) != len(two.mean):
        raise ValueError(f"both sets must have features of one size: got {len(one.mean)} and {len(two.mean)}")
    for name, each in (("first", one), ("second", two)):
        if each.shortfall():
            warn(f"{name}: {each.shortfall()}")
    return _distance(one, two, _root(one))


def statistics_of(name: str, features: FeatureSet) -> Statistics:
    """Mean and covariance of a set, which has the name in messages."""
    gathered = _gathered(name, features)
    if isinstance(gathered, Statistics):
        return gathered
    known = features.features if isinstance(features, FeatureRows) else Features()
    return Statistics(gathered.mean, gathered.covariance(), gathered.rows, known)


def _gathered(name: str, features: FeatureSet) -> Moments | Statistics:
    if isinstance(features, Moments | Statistics):
        return features
    rows = features.result() if isinstance(features, FeatureRows) else features
    return Moments().update(checked(name, rows))


class Extrapolation(NamedTuple):
    """A distance extrapolated to infinitely many samples.

    Attributes:
        value: intercept of the line through distance against 1 / rows.
        low: lower end of the intercept's interval, by Student's t of the fit.
        high: upper end.
        slope: of the line: the bias of a distance of N rows is about slope / N.
        rows: sizes of the subsets.
        distances: of the subsets.
    """

    value: float
    low: float
    high: float
    slope: float
    rows: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_infinity(
    samples: Float[np.ndarray, "n _"],
    reference: FeatureSet,
    *,
    sizes: int = _SIZES,
    level: float = 0.95,
    seed: int = 0,
) -> Extrapolation:
    """FD-infinity of Chong & Forsyth 2020 (arXiv:1911.07023, section 4): the bias of a distance falls as 1 / rows.

    A line is fitted by least squares to the distances of random subsets, from a tenth of the rows, and one more than
    features at least, to all. The reference keeps its size. The interval is of the fit alone; that of the draw of
    samples is `frechet_interval`'s.

    Args:
        sizes: number of subsets, at even steps.
        level: of the interval.

    Raises:
        ValueError: fewer than 3 sizes, or samples that are not more than features + sizes.
    """
    rows = checked("samples", samples)
    if sizes < 3:
        raise ValueError(f"sizes must be at least 3: got {sizes}")
    _between("level", level)
    two = statistics_of("reference", reference)
    dim = len(two.mean)
    one_width("samples", rows, "reference", two.covariance)
    if len(rows) <= dim + sizes:
        raise ValueError(
            f"samples must be more than {dim + sizes}, features and sizes together: got {len(rows)} of {dim} features; "
            "draw more"
        )
    counts = np.unique(np.linspace(max(dim + 1, len(rows) // 10), len(rows), sizes).astype(int))
    rng, root, found = np.random.default_rng(seed), _root(two), []
    for count in counts:
        chosen = rows[rng.choice(len(rows), count, replace=False)] if count < len(rows) else rows
        found.append(_distance(two, statistics_of("samples", chosen), root))
    return _line(counts, np.asarray(found), level)


def _line(counts: np.ndarray, found: np.ndarray, level: float) -> Extrapolation:
    from scipy import stats  # takes half a second

    (slope, value), covariance = np.polyfit(1 / counts, found, 1, cov=True)
    half = float(stats.t.ppf((1 + level) / 2, len(counts) - 2) * np.sqrt(covariance[1, 1]))
    value, rows, distances = float(value), tuple(map(int, counts)), tuple(map(float, found))
    return Extrapolation(value, value - half, value + half, float(slope), rows, distances)


def frechet_interval(
    samples: Float[np.ndarray, "n _"],
    reference: FeatureSet,
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of the Fréchet distance of so many samples from a reference that is fixed.

    Percentiles of the distances of resamples, moved by the difference of the distance and their mean: a resample has
    fewer rows that differ, and so a larger distance than the samples themselves. Of more than 512 features the distance
    of a resample is that of first order, the mean of its rows' influences on the distance (the infinitesimal jackknife:
    Efron & Tibshirani 1993, chapter 22).

    Args:
        resamples: drawn with replacement; each takes an eigendecomposition where there are at most 512 features.

    Raises:
        ValueError: fewer than 2 resamples, or as `frechet_distance`.
    """
    rows = checked("samples", samples, 2)
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2: got {resamples}")
    _between("level", level)
    two = statistics_of("reference", reference)
    one_width("samples", rows, "reference", two.covariance)
    rng, root = np.random.default_rng(seed), _root(two)
    one = statistics_of("samples", rows)
    value = _distance(two, one, root)
    if len(two.mean) > _WIDE:
        influences = _influences(two, one, rows, root)
        resampled = lambda chosen: value + float(np.mean(influences[chosen]))
    else:
        resampled = lambda chosen: _distance(two, statistics_of("samples", rows[chosen]), root)
    found = np.asarray([resampled(rng.integers(0, len(rows), len(rows))) for _ in range(resamples)])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) + value - np.mean(found)
    return max(0.0, float(low)), float(high)


def _influences(
    two: Statistics, one: Statistics, rows: Float[np.ndarray, "n dim"], root: Float[np.ndarray, "dim dim"]
) -> Float[np.ndarray, " n"]:
    """The derivative of the distance of `one` by the weight of each of its rows, whose weights are 1 / n.

    By the covariance the distance has the derivative I - T, T = Σ2^½ (Σ2^½ Σ1 Σ2^½)^-½ Σ2^½ being the optimal map.
    """
    values, vectors = np.linalg.eigh(root @ one.covariance @ root)
    kept = slice(len(values) - min(one.rank, two.rank), None)
    mapped = root @ vectors[:, kept] / np.maximum(values[kept], np.finfo(float).eps * values[-1]) ** 0.25
    shift = 2 * (one.mean - two.mean)

    def of(part: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
        apart = part - one.mean
        return apart @ shift + np.sum(apart**2, 1) - np.sum((apart @ mapped) ** 2, 1)

    found = np.concatenate([of(rows[at : at + _PART]) for at in range(0, len(rows), _PART)])
    return found - np.mean(found)


def _between(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name} must be between 0 and 1: got {share}")


def _root(one: Statistics) -> Float[np.ndarray, "dim dim"]:
    """Σ^½ from the eigenvalues that its rank allows; others are rounding errors, whose roots are not small."""
    values, vectors = np.linalg.eigh(one.covariance)
    values, vectors = values[len(values) - one.rank :], vectors[:, len(values) - one.rank :]
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _distance(one: Statistics, two: Statistics, root: Float[np.ndarray, "dim dim"]) -> float:
    values = np.linalg.eigvalsh(root @ two.covariance @ root)[len(root) - min(one.rank, two.rank) :]
    cross = np.sqrt(np.maximum(values, 0)).sum()
    shift = np.sum((one.mean - two.mean) ** 2)
    return max(0.0, float(shift + np.trace(one.covariance) + np.trace(two.covariance) - 2 * cross))
