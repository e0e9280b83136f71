"""Fidelity and diversity of samples by nearest neighbours of their features."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import checked, one_width
from eqxgen.metrics.neighbours import nearest, within


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of samples among the real features, and of real ones among the samples."""

    precision: float
    recall: float


def precision_recall(samples: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"], k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991, equations 1 and 2).

    A set's manifold is the union of balls around its points, each to its k-th nearest neighbour in the set, surface
    included. Both depend on the numbers of points, which are compared with equal ones in the paper.

    Raises:
        ValueError: k is not from 1 to the rows of a set less one, widths that differ, features that are not finite.
    """
    fake, true = _pair(samples, real, k)
    return PrecisionRecall(_share(true, fake, k), _share(fake, true, k))


class DensityCoverage(NamedTuple):
    """Density: mean number of real balls around a sample, of k; can be above 1. Coverage: share of the real balls that
    hold a sample.
    """

    density: float
    coverage: float


def density_coverage(samples: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"], k: int = 5) -> DensityCoverage:
    """Density and coverage of Naeem et al. 2020 (arXiv:2002.09797, equations 7 and 8), robust to outliers.

    Balls are around real points alone, without their surface, as in the authors' code.

    Raises:
        ValueError: as `precision_recall`.
    """
    fake, true = _pair(samples, real, k)
    radii = nearest(true, true, k, leave_out_own=True)[0][:, -1]
    balls, held = 0, np.zeros(len(true), bool)
    for _, inside in within(true, radii, fake, inclusive=False):
        balls, held = balls + int(np.sum(inside)), held | inside.any(axis=0)
    return DensityCoverage(balls / (k * len(fake)), float(np.mean(held)))


def _pair(samples: np.ndarray, real: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    fake, true = checked("samples", samples, 2), checked("real", real, 2)
    one_width("samples", fake, "real", true)
    for name, rows in (("samples", fake), ("real", true)):
        if not 1 <= k < len(rows):
            raise ValueError(f"k must be at least 1 and below the number of {name}, {len(rows)}: got {k}")
    return fake, true


def _share(centres: np.ndarray, points: np.ndarray, k: int) -> float:
    radii = nearest(centres, centres, k, leave_out_own=True)[0][:, -1]
    return sum(int(inside.any(axis=1).sum()) for _, inside in within(centres, radii, points, inclusive=True)) / len(
        points
    )
