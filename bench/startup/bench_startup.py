"""Startup: imports, `--help`, the first step with a cold and a warm compilation cache; the engine's overhead."""

import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bench.machine import full
from bench.race import Side
from train import maskgit
from train.engine import fit, loop

CASES = {
    "digits": "",
    # The transformer of the cifar10 preset on the tokens of digits, which need no download.
    "cifar10 model": "--model.dim 384 --model.depth 8 --model.heads 12 --model.hidden-dim 1536 --batch-size 8",
}


def command(*arguments: str) -> Side:
    """A Python process from its start to its end."""
    return Side(lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL))


@pytest.mark.parametrize("modules", ["eqxgen", "eqxgen, eqxgen.ops, eqxgen.nn"])
def bench_import(race: Callable, modules: str) -> None:
    code = {"ours": f"import {modules}", "equinox, optax": "import equinox, optax"}
    race({name: functools.partial(command, "-c", text) for name, text in code.items()}, "import", once=True, least=3)


def bench_help(race: Callable) -> None:
    race({"ours": lambda: command("-m", "train.maskgit", "--help")}, "--help", once=True, least=3)


@pytest.mark.skipif(not full(), reason="starts of up to a minute: --full")
@pytest.mark.parametrize("case", CASES)
def bench_first_step(race: Callable, case: str) -> None:
    """From the command to the first step, with a warm cache against an empty one."""
    with tempfile.TemporaryDirectory() as cache:
        first_step(CASES[case], cache)
        makers = {"ours": lambda: Side(lambda: first_step(CASES[case], cache)), "cold": lambda: Side(cold)}
        cold = lambda: _with_folder(lambda empty: first_step(CASES[case], empty))
        race(makers, f"first step, {case}", once=True, least=1)


def _with_folder(function: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        function(folder)


def first_step(flags: str, cache: str) -> None:
    """A new run until it reports its first step; then it is killed."""
    with tempfile.TemporaryDirectory() as folder:
        start = ["-m", "train.maskgit", "--run-dir", f"{folder}/run", "--log-every", "1", "--compile-cache", cache]
        line = [sys.executable, *start, *flags.split()]
        env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
            assert process.stdout is not None
            for text in process.stdout:
                if text.startswith("step 1/"):
                    process.kill()
                    return
    raise RuntimeError(f"{line} ended before its first step")


class Empty:
    """A step that computes once and then returns the same state and metrics."""

    def __init__(self, step: Any):
        self.step, self.metrics = step, None

    def __call__(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        if self.metrics is None:
            state, self.metrics = self.step(inputs, state)
        return state, self.metrics


def bench_overhead(race: Callable, benchmark: Any) -> None:
    """A run of the engine with an empty step; the fact is the milliseconds per step without the wait for data."""
    steps, found = 1600 if full() else 400, []
    race({"ours": lambda: Side(lambda: found.append(of_loop(steps)))}, "engine's overhead", once=True, least=2)
    benchmark.extra_info["engine ms per step"] = statistics.median(found)


def of_loop(steps: int) -> float:
    """Milliseconds of a step in a run, without its wait for data: the median over the lines of metrics."""
    real = loop.make_step
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            maskgit.PRESETS["digits"], run_dir=f"{folder}/run", steps=steps, sample_every=0, checkpoint_every=10**9
        )
        with (
            mock.patch.object(loop, "make_step", lambda *args: Empty(real(*args))),
            mock.patch.object(fit, "finish", return_value=0),
        ):
            maskgit.main(config)
        text = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()][1:-1]
    return statistics.median(line["step_ms"] * (1 - line["input_wait"]) for line in lines)
