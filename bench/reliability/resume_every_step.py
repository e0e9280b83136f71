"""R3: resume a trainer at each of its steps: everything that follows is bit for bit as without a stop.

  python -m bench.reliability.resume_every_step --folder /tmp/r3

A small MaskGIT with dropout, averages and the optimiser's moments, in one process; each resumption restores into shapes
and runs to the end.
"""

from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np

from bench.reliability.common import run
from eqxgen.configs import MaskGITConfig
from train import maskgit
from train.checkpoint import Checkpoints
from train.checkpoint.leaves import to_save
from train.engine.step import Setup, abstract_state, make_step, sharded_state
from train.parallel import make_mesh
from train.tasks.facts import TokenFacts

TOKENS, CODES, CLASSES, BATCH = 16, 7, 3, 4
FACTS = TokenFacts((4, 4, 1), CLASSES, TOKENS, CODES)


def measure(count: int, folder: Path) -> dict[str, Any]:
    sizes = MaskGITConfig(dim=16, depth=1, heads=2, hidden_dim=32, dropout=0.1, placement="pre")
    config = maskgit.Config(model=sizes, batch_size=BATCH, steps=count)
    program = maskgit.RECIPE.program(config, FACTS)
    setup = Setup.of(config, program, make_mesh(devices=jax.devices()[:1]), on_cpu=True)
    update = make_step(setup)
    checkpoints = Checkpoints(folder / "run", keep=count)
    state, losses = sharded_state(setup, jr.key(0)), []
    for step in range(count):
        state, metrics = update((_batch(step), jr.key(1)), state)
        losses.append(float(metrics["loss"]))
        checkpoints.save(step + 1, state)
    checkpoints.wait()
    last, shapes = _bits(state), abstract_state(setup)
    equal = made = 0
    for first in range(1, count + 1):
        state, later = checkpoints.load(first, shapes).state, []
        for step in range(first, count):
            state, metrics = update((_batch(step), jr.key(1)), state)
            later.append(float(metrics["loss"]))
        made += len(later)
        equal += later == losses[first:] and _bits(state) == last
    checkpoints.close()
    return {"resumptions": count, "equal_to_the_end": equal, "steps_made_again": made, "reached": equal == count}


def _batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    ids, labels = (
        rng.integers(CODES, size=(BATCH, TOKENS), dtype=np.int32),
        rng.integers(CLASSES, size=BATCH, dtype=np.int32),
    )
    return {
        "ids": ids,
        "label": labels,
        "index": np.arange(BATCH, dtype=np.int32),
        "weight": np.ones(BATCH, np.float32),
    }


def _bits(state: Any) -> dict[str, bytes]:
    return {name: np.asarray(array).tobytes() for name, array in to_save(state).items()}


if __name__ == "__main__":
    run("R3", __doc__ or "", 50, measure)
