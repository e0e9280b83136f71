"""Samples that are training examples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from eqxgen.metrics.features import checked, one_width
from eqxgen.metrics.neighbours import nearest

_NEAR = 0.01  # share of held-out examples that are as near
_CHANCE = 1e-3


class Memorisation(NamedTuple):
    """Nearness of samples to training examples.

    Attributes:
        ratio: median distance of samples to their nearest training example over the same of held-out examples: 1 for
            new data, 0 for copies.
        near: share of samples that are as near to a training example as the nearest 1 % of held-out examples.
        authentic: share of samples that are farther from their nearest training example than that is from another one.
        flagged: true where so many near samples have a probability below 0.001 for new data.
    """

    ratio: float
    near: float
    authentic: float
    flagged: bool


def memorisation(
    samples: Float[np.ndarray, "n _"], training: Float[np.ndarray, "m _"], held_out: Float[np.ndarray, "l _"]
) -> Memorisation:
    """Nearest-training ratio, and the authenticity of Alaa et al. 2022 (arXiv:2102.08921, section 4).

    Samples smoother than the data can be near as well: a flag says to look at the pairs.

    Raises:
        ValueError: fewer than 2 rows, widths that differ, features that are not finite, or held-out examples that are
            in the training set for the most part, so that there is nothing to compare with.
    """
    rows = {"samples": checked("samples", samples, 2)}
    rows |= {"training": checked("training", training, 2), "held_out": checked("held_out", held_out, 2)}
    for name in ("training", "held_out"):
        one_width("samples", rows["samples"], name, rows[name])
    distances, places = nearest(rows["samples"], rows["training"])
    wanted = nearest(rows["held_out"], rows["training"])[0][:, 0]
    middle = float(np.median(wanted))
    if middle == 0:
        raise ValueError("held_out must not be in training: most have a distance of 0 to it")
    own, near = distances[:, 0], places[:, 0]
    rank = int(_NEAR * (len(wanted) - 1)) + 1
    count = int(np.sum(own <= np.sort(wanted)[rank - 1]))
    authentic = float(np.mean(own > _spacing(rows["training"], near)))
    flagged = _chance(count, len(own), rank, len(wanted)) < _CHANCE
    return Memorisation(float(np.median(own)) / middle, count / len(own), authentic, flagged)


def _spacing(training: np.ndarray, places: np.ndarray) -> Float[np.ndarray, " n"]:
    """Distance of training examples to the nearest other one."""
    unique, back = np.unique(places, return_inverse=True)
    distances, numbers = nearest(training[unique], training, 2)
    # The nearest is the example itself, or a duplicate at the same distance of 0.
    return np.where(numbers[:, 0] == unique, distances[:, 1], distances[:, 0])[back.reshape(-1)]


def _chance(count: int, samples: int, rank: int, held_out: int) -> float:
    """Probability that so many samples or more come before the held-out example of a rank, where all are of one kind:
    among the first `count + rank - 1` of a random order are fewer held-out examples than the rank.
    """
    from scipy import stats  # takes half a second

    return float(stats.hypergeom.cdf(rank - 1, samples + held_out, held_out, count + rank - 1))
