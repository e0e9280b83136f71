"""The judges of samples by real images: classifier, fidelity, and a classifier trained on samples."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from ..config.evals import CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES
from ..data import Dataset
from .base import Evaluator
from .cas import trained_on_samples
from .classifier import classifier
from .examples import Examples
from .fidelity import fidelity
from .stream import Function, Stream


def judges(
    dataset: Dataset | None,
    draw: Function,
    samples: Examples,
    parts: Callable[[PyTree, Any], PyTree],
    lacks: str = "",
) -> tuple[Evaluator, Evaluator, Evaluator]:
    """`classifier`, `fidelity` and `cas` of samples; see each for the arguments.

    Args:
        dataset: the real images; None where there are none.
        lacks: the reason for that.
    """
    if dataset is None:
        first, second, third = (Evaluator(kind, _none, lacks) for kind in (CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES))
        return first, second, third
    first, second, third = (kind(dataset, draw, samples, parts) for kind in (classifier, fidelity, trained_on_samples))
    return first, second, third


def _none(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
    """Numbers of an evaluator that the data cannot give; `chosen` never names it."""
    return {}
