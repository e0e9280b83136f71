"""What the scripts of this folder share: their flags, their results, and a state whose every number the step
decides.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "cpu" / "reliability"

MAZE = [
    "--model.dim",
    "16",
    "--model.heads",
    "2",
    "--model.depth",
    "1",
    "--model.hidden-dim",
    "32",
    "--decode.steps",
    "2",
]
"""Flags of a `train.maskgit` on digits whose step takes milliseconds."""


def run(figure: str, doc: str, count: int, measure: Callable[[int, Path], dict[str, Any]]) -> None:
    """Measures a figure, prints it, and writes it to bench/results/cpu/reliability/; exits with 1 where it was not
    reached.

    Args:
        figure: its name, R1 to R14.
        count: how many trials by default.
        measure: of the number of trials and an empty folder; its `reached` says whether the figure was.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--count", type=int, default=count, help="trials")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{figure}.json", help="file to write")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder to work in")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    begin = time.perf_counter()
    numbers = measure(given.count, given.folder)
    write(given.out, {"figure": figure, **numbers, **about(begin)})
    for name, value in numbers.items():
        print(f"{name:32} {value}")
    sys.exit(0 if numbers["reached"] else 1)


def about(begin: float) -> dict[str, Any]:
    """How long a measurement took since `begin`, of `time.perf_counter`, and with what."""
    import jax

    seconds = round(time.perf_counter() - begin, 1)
    return {"seconds": seconds, "jax": jax.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}


def write(path: Path, numbers: dict[str, Any]) -> None:
    """Writes a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def state_of(step: int, megabytes: float = 1.0) -> dict[str, Any]:
    """The state that belongs to a step: a model, its average, the optimiser's moments, a key, a counter."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    rows = int(megabytes * 2**20 / 4 / 4 / 256)
    rng = np.random.default_rng(step)
    draw = lambda: {
        "up": {"weight": jax.device_put(rng.standard_normal((rows, 256), np.float32))},
        "scale": jnp.full(7, step, jnp.bfloat16),
    }
    return {
        "model": draw(),
        "ema": draw(),
        "opt_state": ({"mu": draw(), "nu": draw()},),
        "key": jr.key(step),
        "step": jnp.int32(step),
    }


def template_of(megabytes: float = 1.0) -> Any:
    """Its shapes."""
    import jax

    return jax.eval_shape(lambda: state_of(0, megabytes))


def is_state_of(step: int, state: Any, megabytes: float = 1.0) -> bool:
    """Whether a state is bit for bit the one of a step."""
    from train.checkpoint.leaves import to_save

    first, second = to_save(state), to_save(state_of(step, megabytes))
    return first.keys() == second.keys() and all(
        np.asarray(first[name]).tobytes() == np.asarray(second[name]).tobytes() for name in first
    )
