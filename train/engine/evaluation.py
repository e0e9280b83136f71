"""Samples and numbers of a run's averaged model, with its arrays in parts on the training mesh."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from ..evaluators.base import Evaluator
from ..evaluators.stream import Stream

Show = Callable[[PyTree, Any, Stream, Path], None]
"""(released model, frozen parts, stream, path without suffix): writes what a family shows, such as a picture. Every
process makes the call, and the first writes."""


@dataclasses.dataclass
class Evaluation:
    """The evaluators of a run, and what they are given.

    Attributes:
        seconds: that evaluators have taken so far.
    """

    evaluators: tuple[Evaluator, ...]
    frozen: Any
    stream: Stream
    seconds: float = 0.0

    def due(self, step: int, eval_every: int) -> tuple[Evaluator, ...]:
        """Those that run after a step."""
        return tuple(evaluator for evaluator in self.evaluators if evaluator.due(step, eval_every))

    def notes(self) -> dict[str, str]:
        """Notes of the evaluators that ran."""
        return {name: text for evaluator in self.evaluators for name, text in evaluator.notes.items()}

    def run(self, model: PyTree, evaluators: tuple[Evaluator, ...]) -> dict[str, float]:
        """Numbers of the released model.

        Raises:
            Stopped: a signal came.
        """
        numbers: dict[str, float] = {}
        for evaluator in evaluators:
            name, began = evaluator.kind.name, time.perf_counter()
            self.stream.say(f"evaluating {name} ...")
            found = evaluator.run(model, self.frozen, self.stream)
            took = time.perf_counter() - began
            values = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
            self.stream.say(f"{name}: {values} in {took:.1f} s")
            self.seconds += took
            numbers |= found
        return numbers

    def show(self, show: Show, model: PyTree, path: Path) -> None:
        """Writes samples of the released model.

        Raises:
            Stopped: a signal came.
        """
        self.stream.say("drawing samples ...")
        began = time.perf_counter()
        show(model, self.frozen, self.stream, path)
        self.stream.say(f"samples: {path.parent} in {time.perf_counter() - began:.1f} s")
