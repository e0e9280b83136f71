"""More steps than a run was begun with: where its schedules permit them, and the learning rates that change."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._errors import UsageError
from ..config.base import TrainConfig
from ..config.optim import OptimConfig


def newest_step(folder: Path) -> int:
    """The newest step that a run's folder has a checkpoint of; 0 where there is none."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("[0-9]*") if path.name.isdigit()), default=0)


def growth(config: TrainConfig, optims: Mapping[str, OptimConfig], before: int, step: int) -> dict[str, Any]:
    """The record of a run that goes on to `config.steps`.

    Args:
        config: of the command, with the new steps.
        optims: optimiser of each player.
        before: steps of the run so far.
        step: where it goes on.

    Returns:
        The step, both numbers of steps, and by player the learning rate of this step before and after.

    Raises:
        UsageError: a step that was made has another learning rate in the longer schedule, and `--extend` is not given.
    """
    import numpy as np

    from ..optim import schedule

    after = config.steps
    for optim in optims.values():
        if step - 1 > agreed(optim, before, after) and not config.extend:
            raise UsageError(
                f"--steps may grow from {before} to {after} only with --extend: at step {step} the run is within the "
                f"{optim.decay} schedule of {before} steps, which --extend stretches to {after}; constant, "
                "inverse_sqrt, and wsd before its decay, need no stretching"
            )
    rates = {
        name: [float(np.asarray(schedule(optim, steps)(step))) for steps in (before, after)]
        for name, optim in optims.items()
    }
    return {"step": step, "from": before, "to": after, "rates": rates}


def agreed(optim: OptimConfig, before: int, after: int) -> int | float:
    """The last step up to which the schedules of two numbers of steps have the same learning rates; -1: none."""
    warmup = min(optim.warmup, before)
    if warmup != min(optim.warmup, after):
        return -1
    match optim.decay:
        case "constant" | "inverse_sqrt":
            return math.inf
        case "wsd":
            return warmup + max(before - warmup - max(round(optim.cooldown * before), 1), 0)
        case _:
            return warmup


def told(record: Mapping[str, Any], optims: Mapping[str, OptimConfig]) -> str:
    """The record of `growth` in a line."""

    def one(name: str) -> str:
        old, new = record["rates"][name]
        whose = f" of {name}" if len(optims) > 1 else ""
        if old == new:
            return f"learning rate{whose} {new:.4g}, as before"
        why = f"as the {optims[name].decay} schedule is stretched"
        return f"learning rate{whose} {old:.4g} before and {new:.4g} now, {why}"

    steps = f"to {record['to']:,} steps, of {record['from']:,} before; from step {record['step']:,}: "
    return steps + ", ".join(one(name) for name in optims)
