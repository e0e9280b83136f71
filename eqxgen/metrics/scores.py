"""Scores of samples that say of which features they are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import FeatureRows, Features
from eqxgen.metrics.frechet import frechet_distance, frechet_infinity, frechet_interval, statistics_of
from eqxgen.metrics.gaussian import Statistics
from eqxgen.metrics.kernel import kernel_distance
from eqxgen.metrics.manifold import density_coverage, precision_recall
from eqxgen.metrics.memorisation import memorisation

_KID_SIZE = 1000


class Score(NamedTuple):
    """A number, and the features that it depends on.

    Attributes:
        name: with that of the features, such as `fd_judge`.
        low: lower end of the interval of 95 %; NaN where there is none.
        high: upper end.
        error: standard error; NaN where there is none.
    """

    name: str
    value: float
    features: Features
    low: float = np.nan
    high: float = np.nan
    error: float = np.nan

    def __str__(self) -> str:
        spread = f" [{self.low:.4g}, {self.high:.4g}]" if self.low == self.low else ""
        error = f" ± {self.error:.2g}" if self.error == self.error else ""
        return f"{self.name} {self.value:.4g}{spread}{error}, features {self.features}"

    def numbers(self) -> dict[str, float]:
        """The value, and what there is of `NAME_low`, `NAME_high` and `NAME_error`."""
        parts = {"low": self.low, "high": self.high, "error": self.error}
        return {self.name: self.value} | {f"{self.name}_{part}": x for part, x in parts.items() if x == x}


def frechet(samples: FeatureRows | Statistics, reference: FeatureRows | Statistics) -> Score:
    """The Fréchet distance under its honest name; see `frechet_distance`.

    Raises:
        ValueError: the features differ by name or hash, or as `frechet_distance`.
    """
    one, two = statistics_of("samples", samples), statistics_of("reference", reference)
    features = one.features.same(two.features)
    return Score(features.score("fd"), frechet_distance(one, two), features)


def fidelity(
    samples: FeatureRows,
    reference: FeatureRows,
    training: FeatureRows | None = None,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[Score, ...]:
    """Scores of samples against held-out examples: the Fréchet distance with its bootstrap interval, extrapolated to
    infinitely many samples with the interval of its fit, the kernel distance with its standard error, precision and
    recall (k = 3), density and coverage (k = 5); with training examples, those of memorisation.

    Neighbours are of as many samples as held-out examples, drawn at random of the larger set.

    Args:
        training: for the ratio of `memorisation`, its shares `near` and `authentic`, and its flag as 0 or 1.
        resamples: of the bootstrap interval.

    Raises:
        ValueError: the features differ by name or hash, or as the scores' functions.
    """
    features = samples.features.same(reference.features)
    rows, real = samples.result(), reference.result()
    fixed = statistics_of("reference", reference)
    far = frechet_infinity(rows, fixed, seed=seed)
    low, high = frechet_interval(rows, fixed, resamples=resamples, seed=seed)
    least = min(len(rows), len(real))
    kernel = kernel_distance(rows, real, size=min(_KID_SIZE, least // 2), seed=seed)
    few = _some(rows, least, seed), _some(real, least, seed)
    found = {**precision_recall(*few)._asdict(), **density_coverage(*few)._asdict()}
    if training is not None:
        features = features.same(training.features)
        copied = memorisation(rows, training.result(), real)
        shares = {"near": copied.near, "authentic": copied.authentic, "flagged": float(copied.flagged)}
        found |= {"memorisation": copied.ratio} | {f"memorisation_{part}": share for part, share in shares.items()}
    name = features.score("fd")
    return (
        Score(name, far.distances[-1], features, low, high),
        Score(f"{name}_infinity", far.value, features, far.low, far.high),
        Score(features.score("kid"), kernel.value, features, error=kernel.error),
        *(Score(features.score(kind), value, features) for kind, value in found.items()),
    )


def _some(rows: Float[np.ndarray, "n dim"], count: int, seed: int) -> Float[np.ndarray, "count dim"]:
    return rows if len(rows) == count else rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]
