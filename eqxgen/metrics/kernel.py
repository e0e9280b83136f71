"""The kernel distance between two sets of features."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import checked, one_width


def polynomial_mmd(first: Float[np.ndarray, "n _"], second: Float[np.ndarray, "m _"], degree: int = 3) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / dim + 1)^degree, in float64; may be negative.

    Source: Bińkowski et al. 2018 (arXiv:1801.01401, equation 4; the kernel of section 4.2).

    Raises:
        ValueError: fewer than 2 rows, widths that differ, features that are not finite, a degree below 1.
    """
    x, y = _pair(first, second)
    if degree < 1:
        raise ValueError(f"degree must be at least 1: got {degree}")
    inner = [_kernel(rows, rows, degree) for rows in (x, y)]
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in inner)
    return float(within - 2 * np.mean(_kernel(x, y, degree)))


class KernelDistance(NamedTuple):
    """Mean of `polynomial_mmd` over subsets.

    Attributes:
        error: its standard error: the deviation over the root of the number of subsets without a common row that fit.
            NaN where a subset is a whole set, so that nothing is known of the spread.
        deviation: standard deviation over subsets, dividing by their number less one.
    """

    value: float
    error: float
    deviation: float


def kernel_distance(
    first: Float[np.ndarray, "n _"],
    second: Float[np.ndarray, "m _"],
    *,
    subsets: int = 100,
    size: int = 1000,
    degree: int = 3,
    seed: int = 0,
) -> KernelDistance:
    """KID of Bińkowski et al. 2018 where the features are Inception's pool; with any others, name them.

    Subsets overlap where they have more rows than there are; the error takes no more of them for independent than fit.

    Args:
        subsets: drawn at random from each set.
        size: rows of a subset, drawn without replacement.

    Raises:
        ValueError: a set has fewer rows than a subset, or as `polynomial_mmd`.
    """
    x, y = _pair(first, second)
    if subsets < 2:
        raise ValueError(f"subsets must be at least 2: got {subsets}")
    least = min(len(x), len(y))
    if not 2 <= size <= least:
        raise ValueError(f"size must be from 2 to the rows of the smaller set, {least}: got {size}")
    rng = np.random.default_rng(seed)
    draw = lambda rows: rows[rng.choice(len(rows), size, replace=False)]
    found = np.asarray([polynomial_mmd(draw(x), draw(y), degree) for _ in range(subsets)])
    deviation = float(np.std(found, ddof=1))
    error = deviation / np.sqrt(min(subsets, least / size)) if size < least else np.nan
    return KernelDistance(float(np.mean(found)), float(error), deviation)


def _pair(first: Float[np.ndarray, "n _"], second: Float[np.ndarray, "m _"]) -> tuple[np.ndarray, np.ndarray]:
    x, y = checked("first", first, 2), checked("second", second, 2)
    one_width("first", x, "second", y)
    return x, y


def _kernel(x: np.ndarray, y: np.ndarray, degree: int) -> Float[np.ndarray, "n m"]:
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** degree
