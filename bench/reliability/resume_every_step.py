"""R3: resume a trainer at each of its steps: everything that follows is bit for bit as without a stop.

  python -m bench.reliability.resume_every_step --folder /tmp/r3
  python -m bench.reliability.resume_every_step --folder /tmp/r3 --recipe vqgan

A small recipe with averages, the optimisers' moments and its model state, in one process; each resumption restores into
shapes and runs to the end.
"""

from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np

from bench.reliability.common import run
from bench.reliability.small import SMALL, batch_of, setup
from train.checkpoint import Checkpoints
from train.checkpoint.leaves import to_save
from train.engine.step import abstract_state, make_step, sharded_state

BATCH = 4


def measure(count: int, folder: Path, recipe: str) -> dict[str, Any]:
    small = setup(recipe, "--batch-size", str(BATCH), "--steps", str(count))
    step_of = make_step(small)
    update = lambda state, step: step_of((batch_of(small.program, BATCH, step), jr.key(1)), state)
    checkpoints = Checkpoints(folder / "run", keep=count)
    state, losses = sharded_state(small, jr.key(0)), []
    for step in range(count):
        state, metrics = update(state, step)
        losses.append(float(metrics["loss"]))
        checkpoints.save(step + 1, state)
    checkpoints.wait()
    last, shapes = _bits(state), abstract_state(small)
    equal = made = 0
    for first in range(1, count + 1):
        state, later = checkpoints.load(first, shapes).state, []
        for step in range(first, count):
            state, metrics = update(state, step)
            later.append(float(metrics["loss"]))
        made += len(later)
        equal += later == losses[first:] and _bits(state) == last
    checkpoints.close()
    return {"resumptions": count, "equal_to_the_end": equal, "steps_made_again": made, "reached": equal == count}


def _bits(state: Any) -> dict[str, bytes]:
    return {name: np.asarray(array).tobytes() for name, array in to_save(state).items()}


if __name__ == "__main__":
    run("R3", __doc__ or "", 50, measure, tuple(SMALL))
