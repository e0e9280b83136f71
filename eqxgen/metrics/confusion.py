"""Scores of guessed labels from their counts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer


class Confusion(NamedTuple):
    """Counts of (label, guess); `Confusion.of(classes)` is the empty count."""

    counts: Float[np.ndarray, "classes classes"]

    @classmethod
    def of(cls, classes: int) -> "Confusion":
        """Counts of so many classes, all 0."""
        if classes < 2:
            raise ValueError(f"classes must be at least 2: got {classes}")
        return cls(np.zeros((classes, classes)))

    def update(self, guesses: Integer[np.ndarray, " n"], labels: Integer[np.ndarray, " n"]) -> "Confusion":
        """With more guesses.

        Raises:
            ValueError: other numbers of guesses and labels, or a class that is no integer or out of range.
        """
        guessed, true, classes = np.asarray(guesses), np.asarray(labels), len(self.counts)
        if guessed.shape != true.shape:
            raise ValueError(f"guesses and labels must be as many: got {guessed.shape} and {true.shape}")
        for name, ids in (("guesses", guessed), ("labels", true)):
            if ids.size and not np.issubdtype(ids.dtype, np.integer):
                raise ValueError(f"{name} must be integers: got {ids.dtype}")
            if ids.size and not (ids.min() >= 0 and ids.max() < classes):
                raise ValueError(f"{name} must be in [0, {classes}): got {ids.min()} to {ids.max()}")
        flat = np.bincount(true.astype(np.int64) * classes + guessed, minlength=classes**2)
        return self._make((self.counts + flat.reshape(classes, classes),))

    def merge(self, other: "Confusion") -> "Confusion":
        """With what another one has seen."""
        if self.counts.shape != other.counts.shape:
            raise ValueError(f"other must have {len(self.counts)} classes: got {len(other.counts)}")
        return self._make((self.counts + other.counts,))

    def accuracy(self) -> float:
        """Share of guesses that equal their labels, in [0, 1]."""
        return float(np.trace(self._seen()) / np.sum(self.counts))

    def f1(self) -> Float[np.ndarray, " classes"]:
        """F1 of each class, 2 TP / (2 TP + FP + FN); 0 of a class that is neither a label nor a guess, as scikit-learn.

        The F1 of a binary task is that of class 1.
        """
        hits = np.diag(self._seen())
        of = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        return np.divide(2 * hits, of, out=np.zeros(len(of)), where=of > 0)

    def iou(self) -> Float[np.ndarray, " classes"]:
        """Intersection over union of each class, TP / (TP + FP + FN); 0 of a class that is neither a label nor a guess.

        The Dice coefficient of a class is its `f1`, 2 IoU / (1 + IoU).
        """
        hits = np.diag(self._seen())
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits
        return np.divide(hits, union, out=np.zeros(len(union)), where=union > 0)

    def macro_f1(self) -> float:
        """Mean over the classes that are a label or a guess, as scikit-learn's `average="macro"`."""
        present = (self._seen().sum(axis=0) + self.counts.sum(axis=1)) > 0
        return float(np.mean(self.f1()[present]))

    def mcc(self) -> float:
        """Correlation coefficient of Matthews, of any number of classes (Gorodkin 2004), in [-1, 1]; 0 where all labels
        or all guesses are of one class, as scikit-learn.
        """
        true, guessed, total = self._seen().sum(axis=1), self.counts.sum(axis=0), self.counts.sum()
        cross = np.trace(self.counts) * total - true @ guessed
        spread = (total**2 - guessed @ guessed) * (total**2 - true @ true)
        return float(cross / np.sqrt(spread)) if spread > 0 else 0.0

    def _seen(self) -> Float[np.ndarray, "classes classes"]:
        if not self.counts.any():
            raise ValueError("labels must be seen before their scores: got none")
        return self.counts
