"""The Fréchet distance between two sets of features."""

import numpy as np
from jaxtyping import Float


def frechet_distance(first: Float[np.ndarray, "n dim"], second: Float[np.ndarray, "m dim"]) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of the Gaussians with the features' means and covariances, in float64.

    It is the FID of Heusel et al. 2017 (arXiv:1706.08500) only where the features are that paper's Inception pool; with
    any others, name them. Covariances divide by n - 1. The square root's trace is the sum of the square roots of the
    eigenvalues of Σ1^½ Σ2 Σ1^½, which are real and not negative.

    Raises:
        ValueError: fewer than two rows, widths that differ, or features that are not finite.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"both sets must have features of one size: got {first.shape[1]} and {second.shape[1]}")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a covariance needs at least 2 rows: got {len(first)} and {len(second)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("features must be finite")
    covariance1, covariance2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (first, second))
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance2 @ root), 0)).sum()
    shift = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    return max(0.0, float(shift + np.trace(covariance1) + np.trace(covariance2) - 2 * cross))
