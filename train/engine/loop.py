"""The training loop that every recipe runs in."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sized
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._errors import UserError
from .._files import read_json, write_json
from ..checkpoint import Checkpoints
from ..config.base import TrainConfig
from ..config.options import free
from ..data import Order, Part
from ..data.feed.feed import Feed, to_devices
from ..evaluators.base import Evaluator, chosen
from ..evaluators.stream import Stopped, Stream
from ..optim import schedule
from ..parallel import check_batch, check_heads, local_rows, make_mesh, place, split
from ..parallel.processes import from_first, is_first, start
from ..precision import check_skipped
from ..report.card import write_card
from ..report.log import Log, Mute
from ..report.meter import Meter
from ..report.peak import flops_of, peak_of
from ..report.sinks import Sink, TensorBoard, WeightsAndBiases
from ..report.timeline import Profiler
from ..run.folder import RunFolder
from ..run.growth import growth, newest_step, told
from ..run.signals import StopRequest
from ..run.weights import digest, save_model
from .best import best_name, check_best
from .command import STARTED
from .compile_cache import use_cache
from .evaluation import Evaluation, Show
from .host_memory import keep_freed_memory
from .recipe import Change, Player, Program
from .start import Start, matched, opened
from .step import Inputs, Setup, State, abstract_state, changed, make_step, make_update, moved_by, sharded_state
from .tuning import tuned_task

if TYPE_CHECKING:
    from .recipes import Recipe

PATIENCE = 400
"""Steps in a row at which `Program.failed` has a reason before a run stops."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A recipe's part in the loop.

    Attributes:
        facts: of the data, as the shapes of the model need them.
        program: the model, its losses and players.
        source: what the training examples are read from, one for each; `Lazy` ones are read ahead.
        batch: the arrays of some places of a batch; the first axis is the places.
        show: writes samples of the released model.
        evaluators: those that the recipe offers for these data.
        prepare: called with the run's folder before the first step.
        released: what model.safetensors holds and samples and evaluation are given, of the averaged model and the
            averaged model state; by default the model.
        own: of the frozen parts, those that samples and evaluation are given; by default all.
        tokens: of one example, for the rate; 0 where examples are not counted in tokens.
        fingerprint: SHA-256 of the data, which a resumed run must have again; empty where there is none.
        hint: (steps made, metrics) -> a line that is said once while training; empty where there is none.
    """

    facts: Any
    program: Program
    source: Sized
    batch: Callable[[Part], dict[str, np.ndarray]]
    show: Show
    evaluators: tuple[Evaluator, ...]
    prepare: Callable[[Path], None] = lambda folder: None
    released: Callable[[PyTree, PyTree], PyTree] = lambda model, state: model
    own: Callable[[PyTree], PyTree] = lambda frozen: frozen
    tokens: int = 0
    fingerprint: str = ""
    hint: Callable[[int, Mapping[str, Any]], str] = lambda done, values: ""


def fit(config: TrainConfig, recipe: "Recipe") -> int:
    """Trains to the last step, resuming what the run folder holds; gives the exit status.

    The task is made after this process has joined the others of its run, since making it may ask for devices, and after
    the run's folder was claimed, since making it may take long.

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
    with RunFolder.open(config, recipe.name, recipe.presets.get(config.preset)) as run:
        if from_first(lambda: run.complete):
            if is_first():
                print(
                    f"{run.path} is complete: {config.steps} steps, see {run.summary}. Give another --run-dir to train "
                    "again."
                )
            return 0
        longer = None if run.grown_from is None else _growth(config, recipe, run, run.grown_from)
        resumes = from_first(lambda: newest_step(run.path)) > 0
        found = opened(config, recipe.name) if config.partial or not resumes else None
        say = print if is_first() else lambda text: None
        say("loading the data ...")
        began = time.perf_counter()
        task = recipe.task(config, run.path)
        say(f"loaded {len(task.source):,} training examples in {time.perf_counter() - began:.1f} s")
        evaluators = chosen(config.evals, task.evaluators)
        check_best(config, evaluators, task.program, mesh)
        weights = None if found is None else matched(found, config, recipe.name, task)
        if weights is not None and config.partial:
            task, weights = tuned_task(config, task, weights, mesh)
        data = {"sha256": task.fingerprint, "examples": len(task.source)} if task.fingerprint else None
        frozen = task.program.frozen()
        began_from = None if weights is None else weights.record
        run.describe(
            task.facts.to_record(), data, changed=config.data.changed, frozen=digest(task.own(frozen)), start=began_from
        )
        if longer is not None:
            run.grow(longer)
        from_first(lambda: task.prepare(run.path))
        setup = Setup.of(config, task.program, mesh, on_cpu=on_cpu)
        return _fit(config, recipe, task, evaluators, frozen, setup, run, weights)


def _growth(config: TrainConfig, recipe: "Recipe", run: RunFolder, before: int) -> dict[str, Any]:
    """The record of a run that goes on to more steps; see `train.run.growth`."""
    where = run.path / "config.json"
    finished = recipe.open(run.path, from_first(lambda: read_json(where)), where)
    players = recipe.program(config, finished.facts).players
    optims = {name: player.optim or config.optim for name, player in players.items()}
    record = from_first(lambda: growth(config, optims, before, newest_step(run.path)))
    if is_first():
        print(f"{run.path}: {told(record, optims)}")
    return record


def _fit(
    config: TrainConfig,
    recipe: "Recipe",
    task: Task,
    evaluators: tuple[Evaluator, ...],
    frozen: PyTree,
    setup: Setup,
    run: RunFolder,
    weights: Start | None,
) -> int:
    folder, record = run.path, run.record
    key = jr.key(config.seed)
    shapes = abstract_state(setup)
    check_heads(shapes.model, setup.mesh)
    best = max if config.keep_best.startswith("max:") else min
    # The steps were held against config.json, which may have fewer in a checkpoint from before they grew.
    may_differ = free(type(config)) | {"steps"}
    kept = Checkpoints(folder / "checkpoints", config.keep, record, best, config.strict, may_differ)
    with closing(kept) as checkpoints:
        if restored := checkpoints.restore(shapes):
            state, first = restored.state, restored.step
        else:
            began = weights.load(setup.mesh) if weights else None
            state, first = sharded_state(setup, jr.fold_in(key, 0), began), 0
        log = Log(folder, config.steps, first, sinks_of(config, folder, first, record)) if is_first() else Mute()
        with closing(log), StopRequest() as stop:
            if restored:
                log.say(f"resuming {folder} from step {first}")
            elif weights:
                log.say(weights.line)
            parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array)))
            devices = f"{setup.mesh.size} x {jax.devices()[0].device_kind}"
            what = "trained parameters" if config.partial else "parameters"
            log.say(f"{recipe.name}: {parameters:,} {what}, {len(task.source):,} examples, {devices}, to {folder}")
            if config.optim.warmup > config.steps:
                log.say(f"warm-up: all of the {config.steps} steps, of the preset's {config.optim.warmup}")
            for evaluator in () if config.evals else task.evaluators:
                if evaluator.lacks:
                    log.say(f"evaluator {evaluator.kind.name} is left out: {evaluator.lacks}")
            stream = Stream(setup.mesh, stop.agreed, log.say)
            frozen = place(frozen, setup.mesh)
            evaluation = Evaluation(evaluators, task.own(frozen), stream)
            # The last numbers of turns that are not due at every step.
            latest = (restored.position or {}).get("metrics", {}) if restored else {}
            loop = _Run(
                config, recipe, task, folder, setup, log, checkpoints, record, evaluation, latest, weights, frozen
            )
            state = loop.train(state, first, key, stop)
            checkpoints.wait()
            if stop.agreed() and stop.received:
                step = int(state.step)
                log.say(
                    f"{stop.received.name}: saved step {step} in {folder / 'checkpoints'}; the same command resumes it"
                )
                return stop.status
            return loop.finish(state, parameters, stop)


@dataclasses.dataclass
class _Run:
    config: TrainConfig
    recipe: "Recipe"
    task: Task
    folder: Path
    setup: Setup
    log: Log | Mute
    checkpoints: Checkpoints
    record: dict[str, Any]
    evaluation: Evaluation
    latest: dict[str, Any]
    weights: Start | None = None
    frozen: PyTree = None
    scores: list[float] = dataclasses.field(default_factory=list)
    hinted: bool = False
    failing: int | None = None  # step since which `Program.failed` has a reason

    def train(self, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        with self.feed(first) as feed:
            return self.steps(feed, state, first, key, stop)

    def steps(self, feed: Feed, state: State, first: int, key: PRNGKeyArray, stop: StopRequest) -> State:
        config, task = self.config, self.task
        program = task.program
        step_of = functools.cache(self.compiled)
        rate = schedule(self.first_player().optim or config.optim, config.steps)
        data_key, change_key = jr.fold_in(key, 1), jr.fold_in(key, 2)
        profiler = Profiler(config.profiled, self.folder / "profile")
        meter = Meter(config.batch_size, first, tokens=task.tokens)
        for step in range(first, config.steps):
            batch = feed.take()
            inputs = Inputs(batch, data_key, self.frozen)
            for number, change in enumerate(change for change in program.changes.values() if self.due(change, step)):
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
            self.latest |= metrics
            if done % 8 == 0 or done == config.steps:
                # It waits: no more than 8 steps in flight, since virtual CPU devices hang from about 32.
                self.check(state, done)
            due = self.evaluation.due(done, config.eval_every) if done < config.steps else ()
            if done % config.log_every == 0 or done == config.steps or due:
                values = self.numbers()
                values = {
                    "examples": done * config.batch_size,
                    **values,
                    # The schedule counts the updates made.
                    "learning_rate": float(np.asarray(rate(step - int(values["skipped"])))),
                    **meter.read(done, feed.waited),
                    "seconds": self.seconds(),
                }
                if due:
                    values |= self.measure(state, due)
                    meter.restart(done, feed.waited)
                self.log.metrics(done, values)
                self.hint(done, values)
                self.score(values)
                self.checkpoints.poll()
            stopping = stop.agreed(done)
            if stopping or done % config.checkpoint_every == 0 or done == config.steps:
                self.save(done, state, feed)
            if config.sample_every and done % config.sample_every == 0 and done < config.steps:
                before = time.perf_counter()
                self.show(state, done)
                meter.pause(time.perf_counter() - before)  # the rate is of training alone
            if stopping:
                break
        profiler.close()
        return state

    def compiled(self, due: tuple[str, ...]) -> Callable:
        """The step of some turns; lines say when its first call begins and ends to compile it."""
        step, calls = make_step(self.setup, due), [0]

        def run(inputs: Inputs, state: State) -> tuple[State, dict[str, Any]]:
            calls[0] += 1
            if calls[0] > 1:
                return step(inputs, state)
            of = "" if len(self.task.program.turns) == 1 else f" of {', '.join(due)}"
            self.log.say(f"compiling the step{of} ...")
            before = time.perf_counter()
            result = step(inputs, state)
            self.log.say(f"compiled in {time.perf_counter() - before:.1f} s")
            return result

        return run

    def due(self, change: Change, step: int) -> bool:
        """True if a change is made before a step: not where it would place anew what `--from` read."""
        placed = step == 0 and self.weights is not None and change.places and self.weights.covers(change.places)
        return change.due(step) and not placed

    def feed(self, first: int) -> Feed:
        """The batches from a step on."""
        config, task = self.config, self.task
        order = Order(config.seed, config.batch_size, len(task.source), local_rows(self.setup.mesh, config.batch_size))
        put = to_devices(split(self.setup.mesh), config.batch_size)
        return Feed(
            task.batch, task.source, order, put, first=first, last=config.steps, config=config.data, say=self.log.say
        )

    def numbers(self) -> dict[str, float]:
        """The last metrics of each turn."""
        return {name: float(value) for name, value in self.latest.items()}

    def first_player(self) -> Player:
        """The player whose learning rate is logged: the first of the first turn."""
        program = self.task.program
        return program.players[next(iter(program.turns.values())).players[0]]

    def check(self, state: State, step: int) -> None:
        """Raises `UserError` after `--max-skips` updates of a turn in a row that could not be made, and where training
        has failed for `PATIENCE` steps.
        """
        program, limit = self.task.program, self.config.max_skips
        for name, turn in program.turns.items():
            skipped = state.skipped[name]
            if int(skipped.consecutive) < limit:
                continue
            moved = moved_by(turn, program.claims(state.model), state.model)
            try:
                check_skipped(skipped, state.scale[name], moved, limit=limit, step=step)
            except FloatingPointError as error:
                raise UserError(f"{error}; {self._last_good()}") from None
        if not (reason := program.failed(self.numbers()) if program.failed else ""):
            self.failing = None
        elif self.failing is None:
            self.failing = step
        elif step - self.failing >= PATIENCE:
            raise UserError(f"step {step}: {reason}, since step {self.failing}; {self._last_good(self.failing)}")

    def measure(self, state: State, evaluators: tuple[Evaluator, ...]) -> dict[str, float]:
        """Numbers of the averaged model during training; none where a signal ends their computation."""
        try:
            return self.evaluation.run(self.released(state), evaluators)
        except Stopped:
            return {}

    def hint(self, done: int, values: Mapping[str, Any]) -> None:
        """Says the task's hint, once."""
        if not self.hinted and (line := self.task.hint(done, values)):
            self.log.say(line)
            self.hinted = True

    def score(self, values: dict[str, Any]) -> None:
        """Notes the metric of `--keep-best` where it is among the values."""
        name = best_name(self.config)
        self.scores += [values[name]] if name in values else []

    def save(self, step: int, state: State, feed: Feed) -> None:
        """A checkpoint, and the released model as it is now."""
        before = time.perf_counter()
        score = float(np.mean(self.scores)) if self.scores else np.nan
        position: dict[str, Any] = feed.order.position(step)
        if any(turn.every > 1 for turn in self.task.program.turns.values()):
            position["metrics"] = self.numbers()
        self.checkpoints.save(step, state, position, score if np.isfinite(score) else None)
        self.scores.clear()
        model = self.released(state)
        save_model(self.folder / "model.safetensors", model, self.record)
        if self.checkpoints.best() == step:
            save_model(self.folder / "best.safetensors", model, self.record)
        self.log.say(f"saving step {step}: {time.perf_counter() - before:.1f} s; the rest while training goes on")

    def released(self, state: State) -> PyTree:
        """The released part of the averaged model, placed as in training."""
        return self.task.released(state.ema[0], state.averaged_state[0])

    def show(self, state: State, step: int) -> None:
        """Writes the samples of a step during training; none where a signal ends their computation."""
        with suppress(Stopped):
            self.draw(self.released(state), step)

    def draw(self, model: PyTree, step: int) -> None:
        """Writes samples of the released model, and gives them to the sinks."""
        path = self.folder / "samples" / f"step-{step:07d}"
        self.evaluation.show(self.task.show, model, path)
        self.log.samples(step, path)

    def seconds(self) -> float:
        """Wall-clock time of the run so far, with the time before it was resumed."""
        return self.log.seconds_before + time.perf_counter() - STARTED

    def finish(self, state: State, parameters: int, stop: StopRequest) -> int:
        """The last samples, the numbers of all evaluators and the summary."""
        evaluation, model = self.evaluation, self.released(state)
        try:
            self.draw(model, self.config.steps)
            numbers = evaluation.run(model, evaluation.evaluators)
            evaluation.stream.check()
        except Stopped:
            name = stop.received.name if stop.received else "signal"
            self.log.say(f"{name}: training is complete and saved; the same command evaluates it again")
            return stop.status
        self.log.numbers(self.config.steps, numbers)
        if is_first():
            self.summarise(numbers, parameters, int(sum(int(turn.total) for turn in state.skipped.values())))
        return 0

    def summarise(self, numbers: dict[str, float], parameters: int, skipped: int) -> None:
        """Writes summary.json and the card."""
        summary = {
            "recipe": self.recipe.name,
            "preset": self.config.preset,
            "steps": self.config.steps,
            "seconds": round(self.seconds(), 2),
            "parameters": parameters,
            "skipped": skipped,
            **numbers,
            **self.evaluation.notes(),
            "evaluation_seconds": round(self.evaluation.seconds, 2),
            "examples_per_s": _rate(self.folder),
            "jax_version": jax.__version__,
            "device": f"{self.setup.mesh.size} x {jax.devices()[0].device_kind}",
        }
        write_card(self.folder, summary, len(self.task.source), self.recipe.title, str(self.task.facts))
        write_json(self.folder / "summary.json", summary)
        for name, value in numbers.items():
            self.log.say(f"{name:24} {value:.4g}")
        if skipped:
            self.log.say(
                f"{skipped:,} of {self.config.steps:,} updates were skipped, as their gradients were not finite"
            )
        if self.config.keep_best and self.checkpoints.best() is None:
            self.log.say(f"no best checkpoint: --keep-best {self.config.keep_best} had no finite value at any of them")
        self.log.say(f"done in {summary['seconds']:.0f} s: {self.folder / 'summary.json'}")

    def _last_good(self, before: int | None = None) -> str:
        self.checkpoints.wait()
        steps = [step for step in self.checkpoints.steps() if before is None or step < before]
        if before is None:
            return f"the last checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint yet"
        return f"the last checkpoint before it is of step {steps[-1]}" if steps else "no checkpoint before it is kept"


def sinks_of(config: TrainConfig, folder: Path, first: int, record: dict[str, Any]) -> list[Sink]:
    """Loggers beside metrics.jsonl."""
    board = TensorBoard(folder, first, record)
    return [board] if config.wandb is None else [board, WeightsAndBiases(folder, config.wandb, record)]


def _rate(folder: Path) -> float:
    """Median of the logged rates, the first left out, which has the compilation in it."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["examples_per_s"] for line in lines]
    return round(float(np.median(rates[1:] or rates)), 2)
