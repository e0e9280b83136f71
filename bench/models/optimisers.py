"""Held-out losses of AdamW, SOAP, Muon and Shampoo after equal seconds of CPU time on nano-cpu:
`EQXGEN_DATA=DATA nice -n 10 python -m bench.models.optimisers`, about 8 CPU minutes.

All train `train.gpt`'s nano-cpu on tiny Shakespeare, from the same weights, on the same batches. The budget is CPU time
of this process, all threads together, so that others on the machine change little of it; compiling and evaluating are
left out. A calibration gives the seconds of a step, by which the budget becomes a number of steps, for the cosine to
end there. Each rate of `RATES` has one trial of `TRIAL` seconds for every optimiser; the best of each then has `FINAL`
seconds from every seed of `SEEDS`. All lanes go on in turns of a twentieth of their steps, so that what the machine
does meanwhile meets all alike. Writes bench/results/cpu/optimisers.json.
"""

import dataclasses
import json
import math
import pathlib
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.machine import RESULTS
from train import gpt
from train.config.optim import Name, OptimConfig
from train.data import Order
from train.engine.recipe import Program
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.evaluators.held_out import validation_loss
from train.evaluators.stream import Stream
from train.optim import optimiser, schedule
from train.parallel import make_mesh
from train.tasks.language import held_out_windows

NAMES: tuple[Name, ...] = ("adamw", "soap", "muon", "shampoo")
RATES = (1e-3, 3e-3, 1e-2)
TRIAL, FINAL, SEEDS = 10.0, 45.0, (0,)
TURNS, CALIBRATION, WARMUP, EVAL_BATCHES = 20, 20, 0.05, 50
OPTIM = OptimConfig(decay="cosine", final=0.1, beta1=0.9, beta2=0.99, weight_decay=0.1, block=128)
RESULT = pathlib.Path(RESULTS) / "cpu" / "optimisers.json"


class Course:
    """The text, and one compiled step for each optimiser, whose learning rate is an argument."""

    def __init__(self) -> None:
        from train.data.text.corpus import load_text

        self.config = gpt.PRESETS["nano-cpu"]
        self.corpus = load_text(self.config.data, self.config.model.context, say=lambda text: None)
        self.mesh = make_mesh("", jax.devices()[:1])
        facts = gpt.TextFacts(self.corpus.vocab, self.config.model.context)
        self.core: Program = gpt.RECIPE.program(self.config, facts)
        self.order = Order(0, self.config.batch_size, len(self.corpus.train))
        self.held_out = held_out_windows(self.corpus.held_out, self.config.batch_size, EVAL_BATCHES)
        self.setups = {name: self.setup(name) for name in NAMES}
        self.steps = {name: make_step(setup) for name, setup in self.setups.items()}

    def setup(self, name: Name) -> Setup:
        """nano-cpu with an optimiser of rate 1, whose updates are then scaled by a number in its state."""
        flat = dataclasses.replace(OPTIM, name=name, learning_rate=1.0, warmup=0, decay="constant")

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return jax.tree.map(lambda u: state * u, updates), state

        scaled = optax.GradientTransformation(lambda params: jnp.ones(()), update)
        setup = Setup.of(self.config, self.core, self.mesh, on_cpu=True)
        return setup._replace(optimisers={"model": optax.chain(optimiser(flat, 1, mesh=self.mesh), scaled)})

    def batch(self, step: int) -> Any:
        part, rows = self.order.part(step), self.config.batch_size
        ids = self.corpus.train.windows(self.corpus.train.drawn(0, part))
        return {"ids": ids, "index": np.arange(rows, dtype=np.int32), "weight": np.ones(rows, np.float32)}

    def loss(self, model: Any) -> float:
        """Nats per token of the held-out windows."""
        return float(validation_loss(model, self.held_out, Stream(self.mesh)).result())


class Lane:
    """Training by one optimiser at one rate from one seed, for a number of steps."""

    def __init__(self, course: Course, name: Name, rate: float, steps: int, seed: int = 0) -> None:
        self.course, self.name, self.steps, self.seed = course, name, steps, seed
        self.state = sharded_state(course.setups[name], jr.key(seed))
        by_step = schedule(dataclasses.replace(OPTIM, learning_rate=rate, warmup=max(round(WARMUP * steps), 1)), steps)
        self.rates = np.asarray(jax.jit(jax.vmap(by_step))(np.arange(steps)), np.float32)
        self.done, self.seconds = 0, 0.0

    def run(self, until: int) -> None:
        """Goes on until a step; the CPU seconds are added up."""
        step, before = self.course.steps[self.name], time.process_time()
        while self.done < min(until, self.steps):
            where = lambda state: state.opt_state["model"][-1]
            state = eqx.tree_at(where, self.state, self.rates[self.done] + np.zeros((), np.float32))
            batch = self.course.batch(self.seed * 10**6 + self.done)
            self.state, _ = step(Inputs(batch, jr.key(1 + self.seed)), state)
            self.done += 1
            if self.done % 8 == 0:
                jax.block_until_ready(self.state)
        jax.block_until_ready(self.state)
        self.seconds += time.process_time() - before

    def loss(self) -> float:
        return self.course.loss(self.state.model)


def race(lanes: list[Lane]) -> None:
    """All lanes to their ends, in turns of a twentieth of the steps of each."""
    for turn in range(1, TURNS + 1):
        for lane in lanes:
            lane.run(math.ceil(turn * lane.steps / TURNS))


def calibrated(course: Course) -> dict[str, float]:
    """CPU seconds of a step of each optimiser: roots, bases and all."""
    lanes = [Lane(course, name, RATES[0], CALIBRATION + 10) for name in NAMES]
    for lane in lanes:
        lane.run(10)  # compiles
        lane.seconds = 0.0
    race(lanes)
    return {lane.name: lane.seconds / CALIBRATION for lane in lanes}


def main() -> None:
    course = Course()
    cost = calibrated(course)
    print({name: f"{1e3 * seconds:.1f} ms" for name, seconds in cost.items()}, flush=True)
    trials = [Lane(course, name, rate, round(TRIAL / cost[name])) for name in NAMES for rate in RATES]
    race(trials)
    tried: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for lane, (name, rate) in zip(trials, [(name, rate) for name in NAMES for rate in RATES], strict=True):
        tried[name][f"{rate:g}"] = round(lane.loss(), 4)
    print(tried, flush=True)
    best = {name: min(RATES, key=lambda rate, own=losses: own[f"{rate:g}"]) for name, losses in tried.items()}
    lanes = [Lane(course, name, best[name], round(FINAL / cost[name]), seed) for seed in SEEDS for name in NAMES]
    race(lanes)
    found: dict[str, Any] = {}
    for name in NAMES:
        own = [lane for lane in lanes if lane.name == name]
        found[name] = {
            "rate": best[name],
            "ms of a step": round(1e3 * sum(lane.seconds for lane in own) / sum(lane.done for lane in own), 2),
            "steps": own[0].done,
            "CPU seconds": [round(lane.seconds, 1) for lane in own],
            "held-out loss": [round(lane.loss(), 4) for lane in own],
            "trials": tried[name],
        }
        print(name, found[name], flush=True)
    shared = {"block": OPTIM.block, "every": OPTIM.every, "rates": list(RATES)}
    about = shared | {
        "model": "nano-cpu",
        "trial seconds": TRIAL,
        "seconds": FINAL,
        "seeds": list(SEEDS),
        "jax": jax.__version__,
    }
    RESULT.write_text(json.dumps({"about": about, "optimisers": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
