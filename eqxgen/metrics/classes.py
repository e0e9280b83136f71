"""Entropy of the classes that a classifier gives samples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import checked


class ClassScore(NamedTuple):
    """Mean over splits, and its standard deviation, dividing by their number."""

    value: float
    deviation: float


def class_score(logits: Float[np.ndarray, "n classes"], splits: int = 10) -> ClassScore:
    """exp of the mean over samples of KL(p(y|x) ‖ p(y)), from 1 (every sample alike) to `classes`, in float64.

    It is the Inception score of Salimans et al. 2016 (arXiv:1606.03498, section 4) only with that network's logits;
    with any other classifier, name it: `Features.score("class_score")`.

    Args:
        splits: consecutive parts of the samples, each scored by itself.

    Raises:
        ValueError: logits that are not finite, one class, or fewer samples than splits.
    """
    rows = checked("logits", logits).astype(np.float64)
    if rows.shape[1] < 2:
        raise ValueError(f"logits must be of at least 2 classes: got {rows.shape[1]}")
    if not 1 <= splits <= len(rows):
        raise ValueError(f"splits must be from 1 to the number of samples, {len(rows)}: got {splits}")
    rows = rows - rows.max(axis=1, keepdims=True)
    logs = rows - np.log(np.sum(np.exp(rows), axis=1, keepdims=True))
    found = [_split(part) for part in np.array_split(logs, splits)]
    return ClassScore(float(np.mean(found)), float(np.std(found)))


def _split(logs: Float[np.ndarray, "n classes"]) -> float:
    shares = np.exp(logs)
    mean = shares.mean(axis=0)
    # A class that no sample has adds 0.
    own = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
    return float(np.exp(np.mean(np.sum(shares * (logs - own), axis=1))))
