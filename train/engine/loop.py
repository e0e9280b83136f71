"""The training loop that every recipe runs in."""

import dataclasses
import json
import time
from collections.abc import Callable, Sized
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._errors import UsageError, UserError
from ..checkpoint import Checkpoints
from ..config.base import STARTED, TrainConfig
from ..data import Order, Part
from ..data.feed.feed import Feed, to_devices
from ..optim import schedule
from ..parallel import (
    Loss,
    Setup,
    State,
    abstract_state,
    check_batch,
    check_heads,
    local_rows,
    make_mesh,
    make_step,
    make_update,
    place,
    sharded_state,
    split,
)
from ..parallel.processes import from_first, is_first, start, whole
from ..precision import all_finite, check_skipped, choose
from ..report.card import write_card
from ..report.log import Log, Mute
from ..report.meter import Meter
from ..report.peak import flops_of, peak_of
from ..report.sinks import Sink, TensorBoard, WeightsAndBiases
from ..report.timeline import Profiler
from ..run.folder import describe_run, open_run, write_json
from ..run.signals import StopRequest
from ..run.weights import save_model
from .compile_cache import use_cache
from .host_memory import keep_freed_memory


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
        source: what the training examples are read from, one for each; `Lazy` ones are read ahead.
        batch: the arrays of some places of a batch; the first axis is the places.
        grid: draws a picture with the averaged model, for a path to write it to.
        evaluate: numbers of the averaged model for summary.json.
        prepare: called with the run's folder before the first step.
        released: which part of the model model.safetensors holds; all of it by default.
        tokens: of one example, for the rate; 0 where examples are not counted in tokens.
        maintain: gives for a step the change of the model before its update, of (model, batch, key), such as dead codes
            restarted; or None.
    """

    recipe: str
    facts: dict[str, Any]
    program: Program
    source: Sized
    batch: Callable[[Part], dict[str, np.ndarray]]
    grid: Callable[[PyTree, Path], None]
    evaluate: Callable[[PyTree], dict[str, float]]
    prepare: Callable[[Path], None] = lambda folder: None
    released: Callable[[PyTree], PyTree] = lambda model: model
    tokens: int = 0
    maintain: Callable[[int], Callable[[PyTree, dict[str, jax.Array], PRNGKeyArray], PyTree] | None] = lambda step: None


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
    setup = Setup.of(config, mesh, on_cpu=on_cpu)
    with open_run(config, recipe) as folder:
        if from_first((folder / "summary.json").exists):
            if is_first():
                print(
                    f"{folder} is complete: {config.steps} steps, see {folder / 'summary.json'}. Give another "
                    "--run-dir to train again."
                )
            return 0
        return _fit(config, make_task(), setup, folder)


def _fit(config: TrainConfig, task: Task, setup: Setup, folder: Path) -> int:
    record = describe_run(folder, config, task.recipe, task.facts)
    from_first(lambda: task.prepare(folder))
    key = jr.key(config.seed)
    shapes = abstract_state(task.program.init, setup)
    check_heads(shapes.model, setup.mesh)
    best = max if config.keep_best.startswith("max:") else min
    with closing(Checkpoints(folder / "checkpoints", config.keep, record, best, config.strict)) as checkpoints:
        if restored := checkpoints.restore(shapes):
            state, first = restored.state, restored.step
        else:
            state, first = sharded_state(task.program.init, setup, jr.fold_in(key, 0)), 0
        log = Log(folder, config.steps, first, sinks_of(config, folder, first, record)) if is_first() else Mute()
        with closing(log), StopRequest() as stop:
            if restored:
                log.say(f"resuming {folder} from step {first}")
            parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array)))
            devices = f"{setup.mesh.size} x {jax.devices()[0].device_kind}"
            log.say(f"{task.recipe}: {parameters:,} parameters, {len(task.source):,} examples, {devices}, to {folder}")
            if config.optim.warmup > config.steps:
                log.say(f"warm-up: all of the {config.steps} steps, of the preset's {config.optim.warmup}")
            run = _Run(config, task, folder, setup, log, checkpoints, record)
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
    scores: list[float] = dataclasses.field(default_factory=list)

    def train(self, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        with self.feed(first) as feed:
            return self.steps(feed, state, first, key, stop)

    def steps(self, feed: Feed, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        config, task = self.config, self.task
        step_fn = make_step(task.program.loss, self.setup)
        rate = schedule(config.optim, config.steps)
        data_key, maintain_key = jr.fold_in(key, 1), jr.fold_in(key, 2)
        profiler = Profiler(config.profiled, self.folder / "profile")
        meter = Meter(config.batch_size, first, tokens=task.tokens)
        for step in range(first, config.steps):
            batch = feed.take()
            if change := task.maintain(step):
                state = _maintain(change, state, batch, jr.fold_in(maintain_key, step), self.setup.mesh)
            if step == first and peak_of(jax.devices()[0].device_kind):
                whole = flops_of(make_update(task.program.loss, self.setup), (batch, data_key), state)
                meter.flops = whole / self.setup.mesh.size
            profiler.before(step, state)
            state, metrics = step_fn((batch, data_key), state)
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
                self.grid(self.averaged(state), done)
                meter.pause(time.perf_counter() - before)  # the rate is of training alone
            if stopping:
                break
        profiler.close()
        return state

    def feed(self, first: int) -> Feed:
        """The batches from a step on."""
        config, task = self.config, self.task
        order = Order(config.seed, config.batch_size, len(task.source), local_rows(self.setup.mesh, config.batch_size))
        place = to_devices(split(self.setup.mesh), config.batch_size)
        return Feed(
            task.batch, task.source, order, place, first=first, last=config.steps, config=config.data, say=self.log.say
        )

    def check(self, state: State, step: int) -> None:
        """Raises `UserError` after `--max-skips` updates in a row that could not be made."""
        try:
            check_skipped(state.skipped, state.scale, state.model, limit=self.config.max_skips, step=step)
        except FloatingPointError as error:
            raise UserError(f"{error}; {self._last_good()}") from None

    def measure(self, state: State) -> dict[str, float]:
        """What the recipe's evaluation says of the averaged model as it is now."""
        model = self.averaged(state)
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
        model = self.task.released(state.ema[0])
        save_model(self.folder / "model.safetensors", model, self.record)
        if self.checkpoints.best() == step:
            save_model(self.folder / "best.safetensors", model, self.record)

    def averaged(self, state: State) -> PyTree:
        """The averaged model, whole, on one device of this process."""
        return eqx.filter_shard(whole(state.ema[0]), jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))

    def grid(self, model: PyTree, step: int) -> None:
        """The picture of a step; of several processes the first draws it."""
        if is_first():
            self.task.grid(model, self.folder / "samples" / f"step-{step:07d}.png")

    def seconds(self) -> float:
        """Wall-clock time of the run so far, with the time before it was resumed."""
        return self.log.seconds_before + time.perf_counter() - STARTED

    def finish(self, state: State, parameters: int, stop: StopRequest) -> int:
        """The last samples and the summary; of several processes the first makes them for all."""
        model = self.averaged(state)
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


@eqx.filter_jit
def _maintain(
    change: Callable, state: State, batch: dict[str, jax.Array], key: PRNGKeyArray, mesh: jax.sharding.Mesh
) -> State:
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
