"""R1: kill -9 inside a save, also while an older step is being deleted.

  nice python -m bench.reliability.kill_in_save --folder /tmp/r1

A writer saves step after step, keeping two, and says when each is safe; it is killed at a random moment. The next one
reads every step that is listed, compares each number with what that step must hold, and goes on. Writers are forked
from this process, which has no devices yet. States of 1, 2 and 5 MB, and those of small runs with players, lazy turns
and model state, take turns.
"""

import os
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

from bench.reliability.common import is_state_of, run, state_of, template_of

KINDS = (1.0, "vqgan", 2.0, "classify", "gan", 5.0, "gan-stylegan2", "vae", "diffusion")
"""Megabytes of the state, or the recipe that it is of, in turn."""


def measure(count: int, folder: Path) -> dict[str, Any]:
    import orbax.checkpoint  # noqa: F401

    import train.checkpoint.commit  # noqa: F401  # imported once, before the forks

    warnings.filterwarnings("ignore", ".*fork", RuntimeWarning)
    rng = random.Random(0)
    numbers = {
        "kills": 0,
        "inside_save": 0,
        "steps_checked": 0,
        "saves_acknowledged": 0,
        "acknowledged_lost": 0,
        "listed_unreadable": 0,
    }
    states: dict[float | str, dict[str, Any]] = {kind: {"safe": 0, "seconds": 0.3} for kind in KINDS}
    while numbers["inside_save"] < count:
        kind = KINDS[numbers["kills"] % len(KINDS)]
        _trial(folder / f"{kind}", kind, rng, states[kind], numbers)
    leftovers = sum(path.name.endswith("-tmp") for path in folder.glob("*/*"))
    return numbers | {
        "unfinished_left_by_the_last_kills": leftovers,
        "reached": numbers["acknowledged_lost"] == numbers["listed_unreadable"] == 0,
    }


def _trial(folder: Path, kind: float | str, rng: random.Random, known: dict[str, Any], numbers: dict[str, int]) -> None:
    """One writer, from its start to its death."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _write(folder, kind, os.fdopen(writer, "w", buffering=1))
        os._exit(9)
    os.close(writer)
    with os.fdopen(reader) as lines:
        found = lines.readline().split()
        if not found:
            raise RuntimeError(f"the writer of {folder} died by itself")
        numbers["steps_checked"] += int(found[1])
        numbers["listed_unreadable"] += int(found[2])
        numbers["acknowledged_lost"] += int(found[0]) < known["safe"]
        lines.readline()  # the first save has begun
        time.sleep(rng.uniform(0, 3 * known["seconds"]))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said = [line.split() for line in lines]
    numbers["kills"] += 1
    saves = [line for line in said if line[0] == "safe"]
    numbers["saves_acknowledged"] += len(saves)
    numbers["inside_save"] += not said or said[-1][0] == "begin"
    known["safe"] = max([int(found[0]), known["safe"], *(int(line[1]) for line in saves)])
    if saves:
        known["seconds"] = 0.5 * (known["seconds"] + float(saves[-1][2]))


def _write(folder: Path, kind: float | str, says: Any) -> None:
    """Checks what there is, then saves until it is killed."""
    from train.checkpoint import Checkpoints
    from train.checkpoint.manifest import damage

    checkpoints, template = Checkpoints(folder, keep=2), template_of(kind)
    steps, wrong = checkpoints.steps(), 0
    for step in steps:
        sound = damage(folder / str(step)) is None
        wrong += not (sound and is_state_of(step, checkpoints.load(step, template).state, kind))
    newest = max(steps, default=0)
    print(newest, len(steps), wrong, file=says)
    for step in range(newest + 1, newest + 10_000):
        state, begin = state_of(step, kind), time.perf_counter()
        print("begin", step, file=says)
        checkpoints.save(step, state)
        checkpoints.wait()
        print("safe", step, time.perf_counter() - begin, file=says)


if __name__ == "__main__":
    run("R1", __doc__ or "", 1000, measure)
