"""`--scan` beside single steps, on small models of the recipes: `python -m bench.models.scan_steps`.

Both sides make the same 10 updates with their batches from a feed, 10 calls and one call, in interleaved rounds in one
process. The clock is the CPU time of the process, which other processes of the machine change little; with one thread
(`taskset -c 0`) it is the wall time of an idle machine. Needs the recipes' data (EQXGEN_DATA). Writes
bench/results/cpu/scan_steps.json: milliseconds of an update on each side, the ratio's median and quartiles, and whether
the states are equal bit for bit after all rounds.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from bench.machine import versions
from train.data import Order
from train.data.feed.feed import Feed, to_devices
from train.engine.recipes import named
from train.engine.scan import Span, make_scan, several
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.parallel import local_rows, make_mesh, split, split_several

RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "scan_steps.json"
MODELS = {
    "gpt nano-cpu": ("gpt", "nano-cpu", {}),
    "maskgit digits": ("maskgit", "digits", {}),
    "rnn lstm": ("rnn", "lstm", {}),
    "vae digits": ("vae", "digits", {}),
}
COUNT, ROUNDS = 10, 7


class Side:
    """Updates of one model, `count` in a call."""

    def __init__(self, config: Any, task: Any, setup: Setup, count: int, calls: int):
        mesh, self.count, self.program = setup.mesh, count, setup.program
        order = Order(config.seed, config.batch_size, len(task.source), local_rows(mesh, config.batch_size))
        put, several_put = (
            to_devices(split(mesh), config.batch_size),
            to_devices(split_several(mesh), config.batch_size, count),
        )
        self.feed = Feed(
            task.batch,
            task.source,
            order,
            put,
            first=0,
            last=count * calls,
            config=config.data,
            counts=[count] * calls,
            place_several=several_put,
        )
        self.step = make_scan(setup) if count > 1 else make_step(setup)
        self.state, self.key, self.start, self.metrics = sharded_state(setup, jr.key(0)), jr.key(1), 0, {}

    def update(self) -> None:
        """Starts one call."""
        inputs = Inputs(self.feed.take(), self.key)
        span = Span(self.start, self.count)
        given = inputs if self.count == 1 else several(self.program, span, inputs, self.metrics)
        self.state, self.metrics = self.step(given, self.state)
        self.start += self.count

    def seconds(self) -> float:
        """Of `COUNT` updates, waited for every 8 steps as in the loop."""
        began = time.process_time()
        for number in range(COUNT // self.count):
            self.update()
            if number % 8 == 7:
                jax.block_until_ready(self.state)
        jax.block_until_ready(self.state)
        return time.process_time() - began


def race(name: str, rounds: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """The numbers of one model."""
    recipe, preset, changes = MODELS[name]
    found = named(recipe)
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(found.presets[preset], run_dir=folder, **changes)
        task = found.task(config, pathlib.Path(folder))
        setup = Setup.of(config, task.program, make_mesh("", jax.devices()[:1]), on_cpu=True)
        sides = [Side(config, task, setup, count, (rounds + 1) * COUNT // count) for count in (1, COUNT)]
        times: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for place in (0, 1) if number % 2 else (1, 0):
                total = sides[place].seconds()
                if number:  # the first compiles
                    times[place].append(1000 * total / COUNT)
        arrays = [jax.tree.leaves(eqx.filter(side.state, eqx.is_array)) for side in sides]
        raw = lambda x: np.asarray(jr.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        same = all(np.array_equal(raw(x), raw(y)) for x, y in zip(*arrays))
        for side in sides:
            side.feed.close()
    ratios = [single / scanned for single, scanned in zip(*times)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    result = {
        "parameters": sum(x.size for x in jax.tree.leaves(eqx.filter(sides[0].state.model, eqx.is_inexact_array))),
        "batch_size": config.batch_size,
        "single_ms": round(statistics.median(times[0]), 3),
        "scanned_ms": round(statistics.median(times[1]), 3),
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "equal": same,
    }
    say(f"{name}: {result}")
    return result


def main() -> None:
    """All models; prints and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=list(MODELS))
    given = parser.parse_args()
    names = [given.only] if given.only else list(MODELS)
    found = {name: race(name, given.rounds) for name in names}
    before = json.loads(RESULT.read_text())["models"] if given.only and RESULT.exists() else {}
    values = {
        "about": {
            "updates": COUNT,
            "rounds": given.rounds,
            "threads": len(os.sched_getaffinity(0)),
            "versions": versions(("jax", "jaxlib")),
        },
        "models": before | found,
    }
    RESULT.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
