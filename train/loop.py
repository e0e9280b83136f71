"""The training loop that every recipe runs in."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from train.checkpoint import Checkpoints
from train.compilecache import use_cache
from train.config import STARTED, TrainConfig
from train.data import batch_indices
from train.errors import UserError
from train.log import Log
from train.optim import schedule
from train.parallel import (
    Loss,
    Setup,
    State,
    abstract_state,
    check_batch,
    check_heads,
    local_rows,
    make_mesh,
    make_step,
    place,
    sharded_state,
    split,
    start,
    trainable,
    whole,
)
from train.precision import all_finite, check_skipped, choose
from train.release import save_model
from train.report.card import write_card
from train.report.meter import Meter
from train.report.peak import flops_of, peak_of
from train.report.sinks import Sink, TensorBoard, WeightsAndBiases
from train.report.trace import Profiler
from train.rundir import open_run, read_json, write_json
from train.signals import StopRequest


class Program(NamedTuple):
    """A model and its loss: what can be compiled before any data is read.

    Attributes:
        init: makes the model from a key.
        loss: of the device's part of a batch; see `train.parallel.Loss`.
        shapes: shape of one example and type of each array in a batch.
    """

    init: Callable[[PRNGKeyArray], PyTree]
    loss: Loss
    shapes: dict[str, tuple[tuple[int, ...], str]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a recipe gives the loop.

    Attributes:
        recipe: its name.
        facts: what a sampler needs to know beside the config, as JSON.
        program: the model and its loss.
        examples: number of training examples.
        batch: the arrays of some examples, by their indices and the step; the first axis is the batch.
        grid: draws a picture with the averaged model, for a path to write it to.
        evaluate: numbers of the averaged model for summary.json.
        prepare: called with the run's folder before the first step.
        released: which part of the model model.safetensors holds; all of it by default.
        maintain: gives for a step the change of the model before its update, of (model, batch, key), such as dead codes restarted; or None.
    """

    recipe: str
    facts: dict[str, Any]
    program: Program
    examples: int
    batch: Callable[[np.ndarray, int], dict[str, np.ndarray]]
    grid: Callable[[PyTree, Path], None]
    evaluate: Callable[[PyTree], dict[str, float]]
    prepare: Callable[[Path], None] = lambda folder: None
    released: Callable[[PyTree], PyTree] = lambda model: model
    maintain: Callable[[int], Callable[[PyTree, dict[str, jax.Array], PRNGKeyArray], PyTree] | None] = lambda step: None


def fit(config: TrainConfig, make_task: Callable[[], Task]) -> int:
    """Trains to the last step, resuming what the run folder holds; gives the exit status.

    The task is made after this process has joined the others of its run, since making it may ask for devices.

    A run that is complete says so and is left alone. SIGINT and SIGTERM save the current step, say where, and give 130 and 143.
    """
    start(config.coordinator, config.num_processes, config.process_id)
    use_cache(config.compile_cache)
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, mesh, config.accumulate)
    task = make_task()
    folder = open_run(config, task.recipe, task.facts)
    if (folder / "summary.json").exists():
        print(f"{folder} is complete: {config.steps} steps, see {folder / 'summary.json'}. Give another --run-dir to train again.")
        return 0
    task.prepare(folder)
    setup = Setup.of(config, mesh, on_cpu=jax.default_backend() == "cpu")
    key = jr.key(config.seed)
    shapes = abstract_state(task.program.init, setup)
    check_heads(shapes.model, mesh)
    checkpoints = Checkpoints(folder / "checkpoints", config.keep)
    if restored := checkpoints.restore(shapes):
        state, first = restored
        print(f"resuming {folder} from step {first}", flush=True)
    else:
        state, first = sharded_state(task.program.init, setup, jr.fold_in(key, 0)), 0
    record = read_json(folder / "config.json")
    log = Log(folder, config.steps, first, sinks_of(config, folder, first, record))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array)))
    log.say(
        f"{task.recipe}: {parameters:,} parameters, {task.examples:,} examples, {mesh.size} x {jax.devices()[0].device_kind}, to {folder}"
    )
    run = _Run(config, task, folder, setup, log, checkpoints, record)
    try:
        with StopRequest() as stop:
            state = run.train(state, first, key, stop)
            if stop.received:
                step = int(state.step)
                log.say(f"{stop.received.name}: saved step {step} in {folder / 'checkpoints'}; the same command resumes it")
                return stop.status
            return run.finish(state, parameters, stop)
    finally:
        log.close()
        checkpoints.close()


@dataclasses.dataclass
class _Run:
    config: TrainConfig
    task: Task
    folder: Path
    setup: Setup
    log: Log
    checkpoints: Checkpoints
    record: dict[str, Any]

    def train(self, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        config, task = self.config, self.task
        step_fn = make_step(task.program.loss, self.setup)
        rate = schedule(config.optim, config.steps)
        data_key, maintain_key = jr.fold_in(key, 1), jr.fold_in(key, 2)
        profiler = Profiler(config.profiled, self.folder / "profile")
        meter = Meter(config.batch_size, first)
        for step in range(first, config.steps):
            batch = self.batch(step)
            if change := task.maintain(step):
                state = _maintain(change, state, batch, jr.fold_in(maintain_key, step), self.setup.mesh)
            if step == first and peak_of(jax.devices()[0].device_kind):
                meter.flops = flops_of(step_fn, (batch, data_key), state)
            profiler.before(step, state)
            state, metrics = step_fn((batch, data_key), state)
            if found := profiler.after(step, metrics):
                self.log.say(found)
            done = step + 1
            if done % 8 == 0 or done == config.steps:
                self.check(state, done)  # it waits: no more than 8 steps in flight, since virtual CPU devices hang from about 32
            if done % config.log_every == 0 or done == config.steps:
                values = {name: float(value) for name, value in metrics.items()}
                values = {
                    "examples": done * config.batch_size,
                    **values,
                    "learning_rate": float(np.asarray(rate(step - int(values["skipped"])))),  # its schedule counts the updates made
                    **meter.read(done),
                    "seconds": self.seconds(),
                }
                self.log.metrics(done, values)
                self.checkpoints.poll()
            if stop.received or done % config.checkpoint_every == 0 or done == config.steps:
                self.checkpoints.save(done, state)
                save_model(self.folder / "model.safetensors", task.released(state.ema[0]), self.record)
            if config.sample_every and done % config.sample_every == 0 and done < config.steps:
                before = time.perf_counter()
                task.grid(self.averaged(state), self.folder / "samples" / f"step-{done:07d}.png")
                meter.pause(time.perf_counter() - before)  # the rate is of training alone
            if stop.received:
                break
        profiler.close()
        return state

    def check(self, state: State, step: int) -> None:
        """Raises `UserError` after `--max-skips` updates in a row that could not be made."""
        try:
            check_skipped(state.skipped, state.scale, trainable(state.model), limit=self.config.max_skips, step=step)
        except FloatingPointError as error:
            raise UserError(f"{error}; {self._last_good()}") from None

    def batch(self, step: int) -> dict[str, jax.Array]:
        config = self.config
        rows = local_rows(self.setup.mesh, config.batch_size)
        indices = batch_indices(config.seed, step, config.batch_size, self.task.examples)[rows]
        arrays = self.task.batch(indices, step) | {"index": rows.astype(np.int32), "weight": np.ones(len(rows), np.float32)}
        return {
            name: jax.make_array_from_process_local_data(split(self.setup.mesh), array, (config.batch_size, *array.shape[1:]))
            for name, array in arrays.items()
        }

    def averaged(self, state: State) -> PyTree:
        """The averaged model, whole, on one device of this process."""
        return eqx.filter_shard(whole(state.ema[0]), jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))

    def seconds(self) -> float:
        """Wall-clock time of the run so far, with the time before it was resumed."""
        return self.log.seconds_before + time.perf_counter() - STARTED

    def finish(self, state: State, parameters: int, stop: StopRequest) -> int:
        """The last samples and the summary."""
        examples_per_s = _rate(self.folder)
        model = self.averaged(state)
        self.task.grid(model, self.folder / "samples" / f"step-{self.config.steps:07d}.png")
        self.log.say("evaluating ...")
        numbers = self.task.evaluate(model)
        if stop.received:
            self.log.say(f"{stop.received.name}: training is complete and saved; the same command evaluates it again")
            return stop.status
        summary = {
            "recipe": self.task.recipe,
            "preset": self.config.preset,
            "steps": self.config.steps,
            "seconds": round(self.seconds(), 2),
            "parameters": parameters,
            **numbers,
            "examples_per_s": examples_per_s,
            "jax_version": jax.__version__,
            "device": f"{self.setup.mesh.size} x {jax.devices()[0].device_kind}",
        }
        write_json(self.folder / "summary.json", summary)
        write_card(self.folder, self.task.examples)
        for name, value in numbers.items():
            self.log.say(f"{name:24} {value:.4g}")
        self.log.say(f"done in {summary['seconds']:.0f} s: {self.folder / 'summary.json'}")
        return 0

    def _last_good(self) -> str:
        self.checkpoints.seal()
        steps = sorted(int(p.name) for p in (self.folder / "checkpoints").glob("*") if p.name.isdigit())
        return f"the last checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint yet"


def sinks_of(config: TrainConfig, folder: Path, first: int, record: dict[str, Any]) -> list[Sink]:
    """Where the numbers go beside metrics.jsonl."""
    board = TensorBoard(folder, first)
    return [board] if config.wandb is None else [board, WeightsAndBiases(folder, config.wandb, record)]


@eqx.filter_jit
def _maintain(change: Callable, state: State, batch: dict[str, jax.Array], key: PRNGKeyArray, mesh: jax.sharding.Mesh) -> State:
    model = change(state.model, batch, key)
    model = choose(all_finite(model), model, state.model)
    # An average that lingers at a code's old place would undo its move.
    follow = lambda old, new, ema: jnp.where(new != old, new, ema) if eqx.is_inexact_array(new) else ema
    ema = tuple(jax.tree.map(follow, state.model, model, average) for average in state.ema)
    return place(eqx.tree_at(lambda s: (s.model, s.ema), state, (model, ema)), mesh)


def _rate(folder: Path) -> float:
    """Median of the logged rates, the first left out, which has the compilation in it."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["examples_per_s"] for line in lines]
    return round(float(np.median(rates[1:] or rates)), 2)
