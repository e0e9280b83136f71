"""What the engine adds to a step: the loop with a step that does nothing, against that step alone.

  python -m bench.startup.overhead       writes bench/results/cpu/overhead.json

The step is compiled and run once, and then gives the same state and metrics again at once. Time that the loop spends
waiting for batches is told apart: behind a step that takes time it vanishes, as `input_wait` of a real run shows.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from train import maskgit
from train.engine import loop

OUT = Path(__file__).parents[1] / "results" / "cpu" / "overhead.json"


class Empty:
    """A step that computes once."""

    def __init__(self, step: Any):
        self.step, self.metrics = step, None

    def __call__(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        if self.metrics is None:
            state, self.metrics = self.step(inputs, state)
        return state, self.metrics


def of_loop(steps: int) -> dict[str, float]:
    """Milliseconds of a step of a run, without and with the time it waits for data: medians over its lines of
    metrics.
    """
    real = loop.make_step
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            maskgit.PRESETS["digits"], run_dir=f"{folder}/run", steps=steps, sample_every=0, checkpoint_every=10**9
        )
        with (
            mock.patch.object(loop, "make_step", lambda *args: Empty(real(*args))),
            mock.patch.object(loop._Run, "finish", return_value=0),
        ):
            maskgit.main(config)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()][1:-1]
    return {
        "engine_ms": statistics.median(line["step_ms"] * (1 - line["input_wait"]) for line in lines),
        "engine_and_input_ms": statistics.median(line["step_ms"] for line in lines),
    }


def of_bare(steps: int) -> float:
    """Milliseconds of the empty step in a loop of its own."""
    step = Empty(lambda inputs, state: (state, {}))
    begin = time.perf_counter()
    state: Any = None
    for _ in range(steps):
        state, _ = step(None, state)
    return 1000 * (time.perf_counter() - begin) / steps


def main() -> None:
    rounds = [of_loop(1600) for _ in range(3)]
    result: dict[str, Any] = {name: round(statistics.median(found[name] for found in rounds), 4) for name in rounds[0]}
    result["bare_ms"] = round(of_bare(100_000), 6)
    result["overhead_ms"] = round(result["engine_ms"] - result["bare_ms"], 4)
    result |= {"rounds": 3, "jax_version": jax.__version__, "python": sys.version.split()[0]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
