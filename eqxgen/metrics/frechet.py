"""The Fréchet distance between two sets of features."""

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.moments import Moments


def frechet_distance(
    first: Float[np.ndarray, "n dim"] | Moments, second: Float[np.ndarray, "m dim"] | Moments
) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of the Gaussians with the features' means and covariances, in float64.

    It is the FID of Heusel et al. 2017 (arXiv:1706.08500) only where the features are that paper's Inception pool; with
    any others, name them. Covariances divide by n - 1. The square root's trace is the sum of the square roots of the
    eigenvalues of Σ1^½ Σ2 Σ1^½, which are real and not negative.

    Args:
        first: features, or the `Moments` of features that came batch by batch.
        second: likewise.

    Raises:
        ValueError: fewer than two rows, widths that differ, or features that are not finite.
    """
    one, two = (x if isinstance(x, Moments) else Moments().update(x) for x in (first, second))
    if len(one.mean) != len(two.mean):
        raise ValueError(f"both sets must have features of one size: got {len(one.mean)} and {len(two.mean)}")
    if min(one.rows, two.rows) < 2:
        raise ValueError(f"a covariance needs at least 2 rows: got {one.rows} and {two.rows}")
    covariance1, covariance2 = one.covariance(), two.covariance()
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance2 @ root), 0)).sum()
    shift = np.sum((one.mean - two.mean) ** 2)
    return max(0.0, float(shift + np.trace(covariance1) + np.trace(covariance2) - 2 * cross))
