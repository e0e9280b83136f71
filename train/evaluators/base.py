"""Evaluators of a run: numbers of the averaged model, each with a period."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import PyTree

from .._errors import UsageError
from ..config.evals import NONE, Evaluation, periods
from .stream import Stream

Run = Callable[[PyTree, Any, Stream], dict[str, float]]
"""(released model, frozen parts, stream) -> numbers. Arrays are in parts over the mesh. Every process makes the
call."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Numbers of a model.

    Attributes:
        kind: its name, and the names of its numbers.
        run: computes them.
        lacks: reason for which the data cannot give them; empty where it can.
        every: steps between runs beside the one at the end; 0: those of --eval-every.
        judged: images of the model that it judges, as `train.evaluators.fidelity.Judged`; None without.
        notes: texts that belong to its numbers, such as the hash of a network; complete after a run.
    """

    kind: Evaluation
    run: Run
    lacks: str = ""
    every: int = 0
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    judged: Any = None

    def due(self, step: int, eval_every: int) -> bool:
        """True where it runs after a step, with that --eval-every."""
        every = self.every or eval_every
        return bool(every) and step % every == 0


def chosen(evals: Sequence[str], offered: Sequence[Evaluator]) -> tuple[Evaluator, ...]:
    """The evaluators that `--evals` names, with their periods; without it, all that the data can give.

    Raises:
        ValueError: one is not offered.
        UsageError: the data lacks what one needs.
    """
    wanted = periods(evals, [evaluator.kind for evaluator in offered])
    for evaluator in offered:
        if evals and evaluator.kind.name in wanted and evaluator.lacks:
            raise UsageError(
                f"--evals {evaluator.kind.name} must have data for it: {evaluator.lacks}; leave it out, or give "
                f"--evals {NONE}"
            )
    return tuple(
        dataclasses.replace(evaluator, every=wanted[evaluator.kind.name])
        for evaluator in offered
        if evaluator.kind.name in wanted and not evaluator.lacks
    )
