"""How long the training loop waits for its data, and what fetching ahead is worth.

  python -m bench.startup.input [DATA]   writes bench/results/cpu/input.json; DATA as --data.root

The digits and MNIST recipes run some steps in turn with and without batches made ahead; the first steps, which compile,
do not count.
"""

import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.random as jr

from train import maskgit, vqgan
from train.config.base import TrainConfig, to_dict
from train.data import DataConfig, Order
from train.data.feed.feed import Feed, to_devices
from train.engine.loop import Task
from train.engine.step import Setup, make_step, sharded_state
from train.parallel import make_mesh, split
from train.run.weights import save_model
from train.tasks.facts import ImageFacts

OUT = Path(__file__).parents[1] / "results" / "cpu" / "input.json"
ROUNDS, STEPS, WARM = 3, 16, 8
LIMIT = 0.03


def recipes(folder: Path, root: str | None) -> dict[str, tuple[TrainConfig, Callable[[], Task]]]:
    """Each recipe's config and what makes its task. The tokenizer of MNIST has weights of no meaning, which cost the
    same.
    """
    tokenizer = dataclasses.replace(vqgan.PRESETS["mnist"], data=DataConfig("mnist", root=root))
    facts = ImageFacts((28, 28, 1), 10)
    description = {"recipe": "vqgan", "config": to_dict(tokenizer), "facts": facts.to_record()}
    save_model(folder / "model.safetensors", vqgan.model(tokenizer, facts)(jr.key(0)), description)
    second = dataclasses.replace(
        maskgit.PRESETS["mnist"], data=tokenizer.data, tokenizer=str(folder), run_dir=str(folder / "run")
    )
    cases = {
        "maskgit-digits": (maskgit.RECIPE, maskgit.PRESETS["digits"]),
        "maskgit-mnist": (maskgit.RECIPE, second),
        "vqgan-digits": (vqgan.RECIPE, vqgan.PRESETS["digits"]),
        "vqgan-mnist": (vqgan.RECIPE, tokenizer),
    }
    run = folder / "run"
    return {
        name: (config, lambda recipe=recipe, config=config: recipe.task(config, run))
        for name, (recipe, config) in cases.items()
    }


def measure(config: TrainConfig, task: Task) -> dict[str, Any]:
    """Seconds a step, and the share of them that the loop waited, with two batches made ahead and with none."""
    mesh = make_mesh()
    setup = Setup.of(config, task.program, mesh, on_cpu=True)
    state, step_fn, key = (
        sharded_state(setup, jr.key(0)),
        make_step(setup),
        jr.key(1),
    )
    order = Order(config.seed, config.batch_size, len(task.source))
    place = to_devices(split(mesh), config.batch_size)
    seconds: dict[int, list[float]] = {0: [], 2: []}
    waits: dict[int, list[float]] = {0: [], 2: []}
    for _ in range(ROUNDS):
        for depth in seconds:
            with Feed(
                task.batch, task.source, order, place, first=0, last=WARM + STEPS, config=config.data, depth=depth
            ) as feed:
                begin = waited = 0.0
                for step in range(WARM + STEPS):
                    if step == WARM:
                        begin, waited = time.perf_counter(), feed.waited
                    state, _ = step_fn((feed.take(), key), state)
                    if step % 8 == 7:
                        jax.block_until_ready(state.step)
                jax.block_until_ready(state)
                spent = time.perf_counter() - begin
            seconds[depth].append(spent / STEPS)
            waits[depth].append((feed.waited - waited) / spent)
    ratio = statistics.median(ahead / none for none, ahead in zip(*seconds.values()))
    return {
        "step_ms": round(1000 * statistics.median(seconds[2]), 2),
        "input_wait": round(statistics.median(waits[2]), 5),
        "input_wait_worst": round(max(waits[2]), 5),
        "input_wait_without_prefetch": round(statistics.median(waits[0]), 5),
        "step_over_without_prefetch": round(ratio, 3),
    }


def main() -> None:
    root = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, (config, make) in recipes(Path(folder), root).items():
            found[name] = measure(config, make())
            print(name, found[name], flush=True)
    about = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rounds": ROUNDS,
        "steps": STEPS,
    }
    reached = all(numbers["input_wait"] < LIMIT for numbers in found.values())
    OUT.write_text(
        json.dumps({"limit": LIMIT, "reached": reached, "recipes": found, "about": about}, indent=2) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
