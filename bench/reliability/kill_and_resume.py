"""R2: kill -9 of `python -m train.maskgit` anywhere, and the same command again, until it is complete.

  nice python -m bench.reliability.kill_and_resume --folder /tmp/r2
  nice python -m bench.reliability.kill_and_resume --folder /tmp/r2-gan --recipe gan     or another of small.py

A run is killed at a random moment of each start, from the interpreter's first import on. In the end its last checkpoint
(weights, averages, optimiser, counters), its data position, its released model and each logged number must be those of
a run that nothing interrupted, and no step may ever have been logged with two values.
"""

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.reliability.commands import logged, start
from bench.reliability.common import run
from bench.reliability.small import SMALL

FLAGS = ("--steps", "60", "--checkpoint-every", "5")


def measure(count: int, folder: Path, recipe: str) -> dict[str, Any]:
    cache, whole = folder / "cache", folder / "whole"
    judged = () if recipe == "maskgit" else ("--evals", "none")  # the judges of others take minutes
    begun = lambda run_dir: start(run_dir, cache, *FLAGS, *judged, recipe=recipe)
    _complete(begun(folder / "warm"))
    seconds = _complete(begun(whole))
    rng = random.Random(0)
    numbers = {"kills": 0, "runs": 0, "equal": 0, "logged_with_two_values": 0, "resumed_from_a_checkpoint": 0}
    while numbers["kills"] < count:
        run_dir, seen = folder / f"run-{numbers['runs']}", {}
        while not (run_dir / "summary.json").exists():
            if numbers["kills"] < count:
                _kill(begun(run_dir), rng.uniform(0, 1.1 * seconds), numbers)
            else:
                _complete(begun(run_dir))
            for step, row in logged(run_dir).items():
                numbers["logged_with_two_values"] += seen.setdefault(step, row) != row
        numbers["runs"] += 1
        numbers["equal"] += _same(run_dir, whole)
    reached = numbers["equal"] == numbers["runs"] and not numbers["logged_with_two_values"]
    return numbers | {"seconds_uninterrupted": round(seconds, 1), "reached": reached}


def _complete(process: subprocess.Popen[str]) -> float:
    begin = time.perf_counter()
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(output[-3000:])
    return time.perf_counter() - begin


def _kill(process: subprocess.Popen[str], after: float, numbers: dict[str, int]) -> None:
    """Kills the process after so many seconds, if it has not completed by then."""
    try:
        output, _ = process.communicate(timeout=after)
        if process.returncode:
            raise RuntimeError(output[-3000:])
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        numbers["kills"] += 1
    numbers["resumed_from_a_checkpoint"] += "resuming " in output


def _same(first: Path, second: Path) -> bool:
    """True where two runs ended alike, bit for bit: model, metrics, last checkpoint."""
    return _weights(first) == _weights(second) and logged(first) == logged(second) and _last(first) == _last(second)


def _weights(run_dir: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in load_file(run_dir / "model.safetensors").items()}


def _last(run_dir: Path) -> tuple[dict[str, str], Any]:
    """SHA-256 of the tensors of the last checkpoint, and its data position."""
    step = max(
        (path for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    files = json.loads((step / "manifest.json").read_text(encoding="utf-8"))["files"]
    tensors = {name: digest for name, (_, digest) in files.items() if name.startswith("state/") and name.count("/") > 1}
    tensors.pop("state/array_metadatas/process_0", None)
    return tensors, json.loads((step / "record" / "metadata").read_text(encoding="utf-8"))["position"]


if __name__ == "__main__":
    run("R2", __doc__ or "", 100, measure, tuple(SMALL))
