"""The training loop that every recipe runs in."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sized
from contextlib import closing
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._errors import UsageError, UserError
from ..checkpoint import Checkpoints
from ..config.base import STARTED, TrainConfig
from ..data import Order, Part
from ..data.feed.feed import Feed, to_devices
from ..optim import schedule
from ..parallel import check_batch, check_heads, local_rows, make_mesh, place, split
from ..parallel.processes import from_first, is_first, start, whole
from ..precision import check_skipped
from ..report.card import write_card
from ..report.log import Log, Mute
from ..report.meter import Meter
from ..report.peak import flops_of, peak_of
from ..report.sinks import Sink, TensorBoard, WeightsAndBiases
from ..report.timeline import Profiler
from ..run.folder import describe_run, open_run, write_json
from ..run.signals import StopRequest
from ..run.weights import digest, save_model
from .compile_cache import use_cache
from .host_memory import keep_freed_memory
from .recipe import Player, Program
from .step import Inputs, Setup, State, abstract_state, changed, make_step, make_update, moved_by, sharded_state


@dataclasses.dataclass(frozen=True)
class Task:
    """What a recipe gives the loop.

    Attributes:
        recipe: its name.
        facts: what a sampler needs to know beside the config, as JSON.
        program: the model, its losses and players.
        source: what the training examples are read from, one for each; `Lazy` ones are read ahead.
        batch: the arrays of some places of a batch; the first axis is the places.
        grid: draws a picture with the released model, for a path to write it to.
        evaluate: numbers of the released model for summary.json.
        prepare: called with the run's folder before the first step.
        released: what model.safetensors holds and samples and evaluation are given, of the averaged model and the
            averaged model state; by default the model.
        tokens: of one example, for the rate; 0 where examples are not counted in tokens.
    """

    recipe: str
    facts: dict[str, Any]
    program: Program
    source: Sized
    batch: Callable[[Part], dict[str, np.ndarray]]
    grid: Callable[[PyTree, Path], None]
    evaluate: Callable[[PyTree], dict[str, float]]
    prepare: Callable[[Path], None] = lambda folder: None
    released: Callable[[PyTree, PyTree], PyTree] = lambda model, state: model
    tokens: int = 0


def fit(config: TrainConfig, recipe: str, make_task: Callable[[], Task]) -> int:
    """Trains to the last step, resuming what the run folder holds; gives the exit status.

    The task is made after this process has joined the others of its run, since making it may ask for devices, and after
    the run's folder was claimed, since making it may take long.

    Args:
        recipe: its name.
        make_task: gives its task.

    A run that is complete says so and is left alone. SIGINT and SIGTERM save the current step, say where, and give 130
    and 143.
    """
    start(config.coordinator, config.num_processes, config.process_id)
    use_cache(config.compile_cache)
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, mesh, config.accumulate)
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu:
        keep_freed_memory()
    with open_run(config, recipe) as folder:
        if from_first((folder / "summary.json").exists):
            if is_first():
                print(
                    f"{folder} is complete: {config.steps} steps, see {folder / 'summary.json'}. Give another "
                    "--run-dir to train again."
                )
            return 0
        task = make_task()
        return _fit(config, task, Setup.of(config, task.program, mesh, on_cpu=on_cpu), folder)


def _fit(config: TrainConfig, task: Task, setup: Setup, folder: Path) -> int:
    frozen = task.program.frozen()
    record = describe_run(folder, config, task.recipe, task.facts, digest(frozen))
    from_first(lambda: task.prepare(folder))
    key = jr.key(config.seed)
    shapes = abstract_state(setup)
    check_heads(shapes.model, setup.mesh)
    best = max if config.keep_best.startswith("max:") else min
    with closing(Checkpoints(folder / "checkpoints", config.keep, record, best, config.strict)) as checkpoints:
        if restored := checkpoints.restore(shapes):
            state, first = restored.state, restored.step
        else:
            state, first = sharded_state(setup, jr.fold_in(key, 0)), 0
        log = Log(folder, config.steps, first, sinks_of(config, folder, first, record)) if is_first() else Mute()
        with closing(log), StopRequest() as stop:
            if restored:
                log.say(f"resuming {folder} from step {first}")
            parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array)))
            devices = f"{setup.mesh.size} x {jax.devices()[0].device_kind}"
            log.say(f"{task.recipe}: {parameters:,} parameters, {len(task.source):,} examples, {devices}, to {folder}")
            if config.optim.warmup > config.steps:
                log.say(f"warm-up: all of the {config.steps} steps, of the preset's {config.optim.warmup}")
            run = _Run(config, task, folder, setup, log, checkpoints, record, place(frozen, setup.mesh))
            state = run.train(state, first, key, stop)
            checkpoints.wait()
            if stop.agreed() and stop.received:
                step = int(state.step)
                log.say(
                    f"{stop.received.name}: saved step {step} in {folder / 'checkpoints'}; the same command resumes it"
                )
                return stop.status
            return run.finish(state, parameters, stop)


@dataclasses.dataclass
class _Run:
    config: TrainConfig
    task: Task
    folder: Path
    setup: Setup
    log: Log | Mute
    checkpoints: Checkpoints
    record: dict[str, Any]
    frozen: PyTree = None
    scores: list[float] = dataclasses.field(default_factory=list)

    def train(self, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        with self.feed(first) as feed:
            return self.steps(feed, state, first, key, stop)

    def steps(self, feed: Feed, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        config, task = self.config, self.task
        program = task.program
        step_of = functools.cache(lambda due: make_step(self.setup, due))
        rate = schedule(self.first_player().optim or config.optim, config.steps)
        data_key, change_key = jr.fold_in(key, 1), jr.fold_in(key, 2)
        profiler = Profiler(config.profiled, self.folder / "profile")
        meter = Meter(config.batch_size, first, tokens=task.tokens)
        for step in range(first, config.steps):
            batch = feed.take()
            inputs = Inputs(batch, data_key, self.frozen)
            for number, change in enumerate(change for change in program.changes.values() if change.due(step)):
                own = jr.fold_in(change_key, step) if number == 0 else jr.fold_in(jr.fold_in(change_key, step), number)
                state = changed(change.change, inputs._replace(key=own), state, self.setup.mesh)
            if step == first and peak_of(jax.devices()[0].device_kind):
                due = program.due(1)  # the turns of most steps
                meter.flops = flops_of(make_update(self.setup, due), inputs, state) / self.setup.mesh.size
            profiler.before(step, state)
            state, metrics = step_of(program.due(step))(inputs, state)
            if found := profiler.after(step, metrics):
                self.log.say(found)
            done = step + 1
            if done % 8 == 0 or done == config.steps:
                self.check(
                    state, done
                )  # it waits: no more than 8 steps in flight, since virtual CPU devices hang from about 32
            measured = config.eval_every and done % config.eval_every == 0 and done < config.steps
            if done % config.log_every == 0 or done == config.steps or measured:
                values = {name: float(value) for name, value in metrics.items()}
                values = {
                    "examples": done * config.batch_size,
                    **values,
                    "learning_rate": float(
                        np.asarray(rate(step - int(values["skipped"])))
                    ),  # its schedule counts the updates made
                    **meter.read(done, feed.waited),
                    "seconds": self.seconds(),
                }
                if measured:
                    values |= self.measure(state)
                    meter.restart(done, feed.waited)
                self.log.metrics(done, values)
                self.score(values, bool(measured))
                self.checkpoints.poll()
            stopping = stop.agreed(done)
            if stopping or done % config.checkpoint_every == 0 or done == config.steps:
                self.save(done, state, feed)
            if config.sample_every and done % config.sample_every == 0 and done < config.steps:
                before = time.perf_counter()
                self.grid(self.shown(state), done)
                meter.pause(time.perf_counter() - before)  # the rate is of training alone
            if stopping:
                break
        profiler.close()
        return state

    def feed(self, first: int) -> Feed:
        """The batches from a step on."""
        config, task = self.config, self.task
        order = Order(config.seed, config.batch_size, len(task.source), local_rows(self.setup.mesh, config.batch_size))
        put = to_devices(split(self.setup.mesh), config.batch_size)
        return Feed(
            task.batch, task.source, order, put, first=first, last=config.steps, config=config.data, say=self.log.say
        )

    def first_player(self) -> Player:
        """The player whose learning rate is logged: the first of the first turn."""
        program = self.task.program
        return program.players[next(iter(program.turns.values())).players[0]]

    def check(self, state: State, step: int) -> None:
        """Raises `UserError` after `--max-skips` updates of a turn in a row that could not be made."""
        for name, turn in self.task.program.turns.items():
            try:
                check_skipped(
                    state.skipped[name],
                    state.scale[name],
                    moved_by(turn, self.task.program.claims(state.model), state.model),
                    limit=self.config.max_skips,
                    step=step,
                )
            except FloatingPointError as error:
                raise UserError(f"{error}; {self._last_good()}") from None

    def measure(self, state: State) -> dict[str, float]:
        """What the recipe's evaluation says of the averaged model as it is now."""
        model = self.shown(state)
        return from_first(lambda: self.task.evaluate(model))

    def score(self, values: dict[str, Any], measured: bool) -> None:
        """Notes the metric of `--keep-best`; those of the evaluation are there only where it was `measured`."""
        name = self.config.keep_best.removeprefix("max:").removeprefix("min:")
        if name and name not in values and (measured or not self.config.eval_every):
            cure = "" if measured else "; those of the evaluation need --eval-every"
            raise UsageError(
                f"--keep-best must be a metric of this run, one of {', '.join(values)}: got {name!r}{cure}"
            )
        self.scores += [values[name]] if name in values else []

    def save(self, step: int, state: State, feed: Feed) -> None:
        """A checkpoint, and the released model as it is now."""
        score = float(np.mean(self.scores)) if self.scores else None
        self.checkpoints.save(step, state, feed.order.position(step), score)
        self.scores.clear()
        model = self.task.released(state.ema[0], state.averaged_state[0])
        save_model(self.folder / "model.safetensors", model, self.record)
        if self.checkpoints.best() == step:
            save_model(self.folder / "best.safetensors", model, self.record)

    def shown(self, state: State) -> PyTree:
        """The released model, whole, on one device of this process."""
        model = whole(self.task.released(state.ema[0], state.averaged_state[0]))
        return eqx.filter_shard(model, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))

    def grid(self, model: PyTree, step: int) -> None:
        """The picture of a step; of several processes the first draws it."""
        if is_first():
            self.task.grid(model, self.folder / "samples" / f"step-{step:07d}.png")

    def seconds(self) -> float:
        """Wall-clock time of the run so far, with the time before it was resumed."""
        return self.log.seconds_before + time.perf_counter() - STARTED

    def finish(self, state: State, parameters: int, stop: StopRequest) -> int:
        """The last samples and the summary; of several processes the first makes them for all."""
        model = self.shown(state)
        if not is_first():
            return stop.status
        examples_per_s = _rate(self.folder)
        self.grid(model, self.config.steps)
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
        write_card(self.folder, summary, len(self.task.source))
        write_json(self.folder / "summary.json", summary)
        for name, value in numbers.items():
            self.log.say(f"{name:24} {value:.4g}")
        self.log.say(f"done in {summary['seconds']:.0f} s: {self.folder / 'summary.json'}")
        return 0

    def _last_good(self) -> str:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        return f"the last checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint yet"


def sinks_of(config: TrainConfig, folder: Path, first: int, record: dict[str, Any]) -> list[Sink]:
    """Where the numbers go beside metrics.jsonl."""
    board = TensorBoard(folder, first)
    return [board] if config.wandb is None else [board, WeightsAndBiases(folder, config.wandb, record)]


def _rate(folder: Path) -> float:
    """Median of the logged rates, the first left out, which has the compilation in it."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["examples_per_s"] for line in lines]
    return round(float(np.median(rates[1:] or rates)), 2)
