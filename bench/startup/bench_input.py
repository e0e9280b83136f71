"""Input: train steps with batches made ahead against batches made when they are asked for, and the share of the wait.

The digits recipes need no download; with `--full` those of MNIST too, from the data folder EQXGEN_DATA if it is set.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import pytest

from bench.machine import full
from bench.race import Side
from train import maskgit, vqgan
from train.config.base import TrainConfig, to_dict
from train.data import DataConfig, Order
from train.data.feed.feed import Feed, to_devices
from train.engine.step import Setup, make_step, sharded_state
from train.engine.task import Task
from train.parallel import make_mesh, split
from train.run.weights import save_model
from train.tasks.facts import ImageFacts

AHEAD = 2
STEPS = 16 if full() else 8


def digits(folder: Path) -> tuple[Any, TrainConfig]:
    return maskgit.RECIPE, maskgit.PRESETS["digits"]


def tokenizer_of(name: str) -> TrainConfig:
    root = os.environ.get("EQXGEN_DATA")
    return dataclasses.replace(vqgan.PRESETS[name], data=DataConfig(name, root=root if name == "mnist" else None))


def mnist(folder: Path) -> tuple[Any, TrainConfig]:
    """The second stage, with a tokenizer of random weights, whose time is the same."""
    tokenizer, facts = tokenizer_of("mnist"), ImageFacts((28, 28, 1), 10)
    description = {"recipe": "vqgan", "config": to_dict(tokenizer), "facts": facts.to_record()}
    save_model(folder / "model.safetensors", vqgan.model(tokenizer, facts)(jr.key(0)), description)
    options = {"data": tokenizer.data, "tokenizer": str(folder), "run_dir": str(folder / "run")}
    return maskgit.RECIPE, dataclasses.replace(maskgit.PRESETS["mnist"], **options)


RECIPES: dict[str, Callable[[Path], tuple[Any, TrainConfig]]] = {
    "maskgit-digits": digits,
    "maskgit-mnist": mnist,
    "vqgan-digits": lambda folder: (vqgan.RECIPE, tokenizer_of("digits")),
    "vqgan-mnist": lambda folder: (vqgan.RECIPE, tokenizer_of("mnist")),
}


@pytest.mark.parametrize("name", RECIPES if full() else ["maskgit-digits"])
def bench_input(race: Callable, benchmark: Any, name: str, tmp_path: Path) -> None:
    recipe, config = RECIPES[name](tmp_path)
    steps = Steps(config, recipe.task(config, tmp_path / "run"))
    makers = {"ours": lambda: Side(lambda: steps.run(AHEAD)), "not ahead": lambda: Side(lambda: steps.run(0))}
    found = race(makers, f"input {name}", least=3, settings={"steps": STEPS})
    if "ms" in found:
        waits = {f"wait, {ahead} ahead": statistics.median(waited) for ahead, waited in steps.waits.items()}
        benchmark.extra_info |= {"step ms": found["ms"]["ours"] / STEPS} | waits


class Steps:
    """A recipe's train steps, and the share of their time waiting for batches, by the number of batches made ahead."""

    def __init__(self, config: TrainConfig, task: Task):
        mesh = make_mesh()
        setup = Setup.of(config, task.program, mesh, on_cpu=jax.default_backend() == "cpu")
        self.config, self.task, self.step = config, task, make_step(setup)
        self.state = sharded_state(setup, jr.key(0))
        self.place = to_devices(split(mesh), config.batch_size)
        self.waits: dict[int, list[float]] = {}

    def run(self, ahead: int) -> None:
        task, options = self.task, {"first": 0, "last": STEPS, "config": self.config.data, "depth": ahead}
        order = Order(self.config.seed, self.config.batch_size, len(task.source))
        begin = time.perf_counter()
        with Feed(task.batch, task.source, order, self.place, **options) as feed:
            for step in range(STEPS):
                self.state, _ = self.step((feed.take(), jr.key(1)), self.state)
                if step % 8 == 7:
                    jax.block_until_ready(self.state.step)
            jax.block_until_ready(self.state)
            self.waits.setdefault(ahead, []).append(feed.waited / (time.perf_counter() - begin))
