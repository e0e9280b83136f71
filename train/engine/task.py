"""A recipe's part in the loop."""

import dataclasses
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ..data import Part
from ..evaluators.base import Evaluator
from .evaluation import Show
from .recipe import Program


@dataclasses.dataclass(frozen=True)
class Task:
    """Data, model, samples and evaluators of a run.

    Attributes:
        facts: of the data, as the shapes of the model need them.
        program: the model, its losses and players.
        source: what the training examples are read from, one for each; `Lazy` ones are read ahead.
        batch: the arrays of some places of a batch; the first axis is the places.
        show: writes samples of the released model.
        evaluators: those that the recipe offers for these data.
        prepare: called with the run's folder before the first step.
        released: what model.safetensors holds and samples and evaluation are given, of the averaged model and the
            averaged model state; by default the model.
        own: of the frozen parts, those that samples and evaluation are given; by default all.
        tokens: of one example, for the rate; 0 where examples are not counted in tokens.
        fingerprint: SHA-256 of the data, which a resumed run must have again; empty where there is none.
        hint: (steps made, metrics) -> a line that is said once while training; empty where there is none.
    """

    facts: Any
    program: Program
    source: Sized
    batch: Callable[[Part], dict[str, np.ndarray]]
    show: Show
    evaluators: tuple[Evaluator, ...]
    prepare: Callable[[Path], None] = lambda folder: None
    released: Callable[[PyTree, PyTree], PyTree] = lambda model, state: model
    own: Callable[[PyTree], PyTree] = lambda frozen: frozen
    tokens: int = 0
    fingerprint: str = ""
    hint: Callable[[int, Mapping[str, Any]], str] = lambda done, values: ""
