"""`--keep-best`: its metric is known before the first step."""

from collections.abc import Sequence

import equinox as eqx
from jax.sharding import Mesh

from .._errors import UsageError
from ..config.base import TrainConfig
from ..config.options import nearest
from ..evaluators.base import Evaluator
from ..report.meter import CLOCKED
from .dryrun import abstract_update
from .recipe import Program


def best_name(config: TrainConfig) -> str:
    """The metric's name; empty where no best checkpoint is kept."""
    return config.keep_best.removeprefix("max:").removeprefix("min:")


def check_best(config: TrainConfig, evaluators: Sequence[Evaluator], program: Program, mesh: Mesh) -> None:
    """Raises `UsageError` unless the loss or an evaluator gives the metric of `--keep-best`."""
    name = best_name(config)
    measured = [number for evaluator in evaluators for number in evaluator.kind.gives]
    if not name or name in measured:
        return
    trained = list(eqx.filter_eval_shape(*abstract_update(config, program, mesh))[1])
    if name not in trained:
        names = [metric for metric in (*trained, *measured) if metric not in CLOCKED]
        raise UsageError(
            f"--keep-best must be a metric of this run, one of {', '.join(names)}: got {name!r}{nearest(name, names)}"
        )
