"""MNIST-1D: sequences of 40 values, made of ten templates by shifts, noise and shear (Greydanus and Kobak 2020,
arXiv:2011.14439).

The numbers are drawn in the order of the published package, so that its arrays are the same for the same seed, but for
rounding: its default seed 42 gives the frozen set that others report on.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .._errors import require

_ROUND = (0, 1, 1.5, 1.75, 2, 2, 2, 2, 1.75, 1.5, 1, 0)
_STEM = (0, 2, 2, 1.6, 1.2, 0.8, 0.4, 0, -0.4, -0.8, 0, 0)
_BOWLS = (0, 1, 1.5, 1.5, 1, 0, 0, 1, 1.5, 1.5, 1, 0)
TEMPLATES = np.array(
    [
        _ROUND,
        [-x for x in _STEM],
        (0, 1, 1.5, 1.5, 1, 0.25, -0.25, -1, -1.5, -1.5, -1, 0),
        _BOWLS,
        (0, -1, -2, -3, -4, -4, 0, 0, 0, 0, 0, 0),
        (0, -2, -2, -2, -2, 0, 1, 1.5, 1.5, 1, -0.5, 0),
        [-x for x in _ROUND],
        _STEM,
        [-x for x in _BOWLS],
        (0, -1, -1.5, -1.5, -1, 0, 0, 0, 0, -0.3, -0.7, 0),
    ]
)
"""Outline of each digit, before it is scaled to a deviation of 1/6."""
CLASSES = len(TEMPLATES)
SEQ = 40
"""Values of a sequence."""
_PADDING, _SHIFTS = (36, 60), 48
_SCALE, _NOISE, _SMOOTH, _SHEAR = 0.4, 0.02, 0.25, 0.75
_LONG = TEMPLATES.shape[1] + _PADDING[1]


class Sequences(NamedTuple):
    """Sequences and their digits, to train on and held out."""

    train: Float64[np.ndarray, "n seq"]
    train_labels: Int64[np.ndarray, " n"]
    test: Float64[np.ndarray, "m seq"]
    test_labels: Int64[np.ndarray, " m"]


def mnist1d(count: int = 5000, seed: int = 42, train: float = 0.8) -> Sequences:
    """A set of `count` sequences, of which the share `train` is to train on. All values together have mean 0 and
    deviation 1.

    Raises:
        ValueError: count is no multiple of the ten digits, or a part is empty.
    """
    cut = int(count * train)
    require(
        count >= CLASSES and count % CLASSES == 0, f"count must be a multiple of {CLASSES}, the digits: got {count}"
    )
    require(0 < cut < count, f"train must be in (0, 1) and leave examples for both parts: got {train} of {count}")
    rng = np.random.RandomState(seed)
    labels = np.repeat(np.arange(CLASSES), count // CLASSES)
    rows = np.stack([_drawn(template, rng) for template in _templates()[labels]])
    order = rng.permutation(count)
    rows, labels = ((rows - rows.mean()) / rows.std())[order], labels[order]
    return Sequences(rows[:cut], labels[:cut], rows[cut:], labels[cut:])


def _templates() -> Float64[np.ndarray, "digits 12"]:
    return TEMPLATES / (6 * TEMPLATES.std(axis=1, keepdims=True))


def _drawn(template: Float64[np.ndarray, " 12"], rng: np.random.RandomState) -> Float64[np.ndarray, " seq"]:
    """A sequence of one digit: padded, stretched, scaled and turned around; smooth noise where it is padded, white
    noise and a slope everywhere.
    """
    low, high = _PADDING
    padding = low + int(rng.rand() * (high - low + 1))
    row = _resampled(np.concatenate([template + 1e-8, np.zeros(padding)]), _LONG)
    row = row * (1 + _SCALE * (rng.rand() - 0.5))
    row = np.roll(row, rng.choice(_SHIFTS))
    row = np.where(row != 0, row, _smoothed(_SMOOTH * rng.randn(_LONG)))
    row = row + _NOISE * rng.randn(_LONG)
    row = row - _SHEAR * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, _LONG)
    return _resampled(row, SEQ)


def _resampled(row: np.ndarray, count: int) -> np.ndarray:
    """Linear interpolation at evenly spaced places."""
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(row)), row)


def _smoothed(row: np.ndarray, deviation: float = 2.0) -> np.ndarray:
    """A Gaussian filter, cut off at four deviations, of a row mirrored with its ends repeated."""
    reach = math.ceil(4 * deviation)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.convolve(np.pad(row, reach, mode="symmetric"), weights / weights.sum(), mode="valid")
