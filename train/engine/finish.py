"""The end of a run: samples, numbers and the summary."""

import json
from pathlib import Path

import jax
import numpy as np

from .._files import write_json
from ..evaluators.stream import Stopped
from ..parallel.processes import is_first
from ..precision import SpikesSkipped
from ..report.card import write_card
from ..run.signals import StopRequest
from .loop import Run
from .step import State


def finish(run: Run, state: State, parameters: int, stop: StopRequest) -> int:
    """The last samples, the numbers of all evaluators and the summary."""
    evaluation, model = run.evaluation, run.released(state)
    try:
        run.draw(model, run.config.steps)
        numbers = evaluation.run(model, evaluation.evaluators)
        evaluation.stream.check()
    except Stopped:
        name = stop.received.name if stop.received else "signal"
        run.log.say(f"{name}: training is complete and saved; the same command evaluates it again")
        return stop.status
    run.log.numbers(run.config.steps, numbers)
    if is_first():
        spikes = [int(turn.spikes) for turn in state.skipped.values() if isinstance(turn, SpikesSkipped)]
        numbers |= {"spikes": sum(spikes)} if spikes else {}
        _summarise(run, numbers, parameters, int(sum(int(turn.total) for turn in state.skipped.values())))
    return 0


def _summarise(run: Run, numbers: dict[str, float], parameters: int, skipped: int) -> None:
    """Writes summary.json and the card."""
    summary = {
        "recipe": run.recipe.name,
        "preset": run.config.preset,
        "steps": run.config.steps,
        "seconds": round(run.seconds(), 2),
        "parameters": parameters,
        "skipped": skipped,
        **numbers,
        **run.evaluation.notes(),
        "evaluation_seconds": round(run.evaluation.seconds, 2),
        "examples_per_s": _rate(run.folder),
        "jax_version": jax.__version__,
        "device": f"{run.setup.mesh.size} x {jax.devices()[0].device_kind}",
    }
    write_card(run.folder, summary, len(run.task.source), run.recipe.title, str(run.task.facts))
    write_json(run.folder / "summary.json", summary)
    for name, value in numbers.items():
        run.log.say(f"{name:24} {value:.4g}")
    if skipped:
        spikes = numbers.get("spikes", 0)
        reason = f"{spikes:,} of them as spikes" if spikes else "as their gradients were not finite"
        run.log.say(f"{skipped:,} of {run.config.steps:,} updates were skipped, {reason}")
    if run.config.keep_best and run.checkpoints.best() is None:
        run.log.say(f"no best checkpoint: --keep-best {run.config.keep_best} had no finite value at any of them")
    run.log.say(f"done in {summary['seconds']:.0f} s: {run.folder / 'summary.json'}")


def _rate(folder: Path) -> float:
    """Median of the logged rates, the first left out, which has the compilation in it."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["examples_per_s"] for line in lines]
    return round(float(np.median(rates[1:] or rates)), 2)
