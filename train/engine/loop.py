"""The training loop that every recipe runs in."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._errors import UserError
from ..checkpoint import Checkpoints
from ..config.base import TrainConfig
from ..data import Order
from ..data.feed.feed import Feed, to_devices
from ..evaluators.base import Evaluator
from ..evaluators.stream import Stopped
from ..optim import schedule
from ..parallel import local_rows, split, split_several
from ..precision import check_skipped
from ..report.log import Log, Mute
from ..report.meter import Meter
from ..report.peak import flops_of, peak_of
from ..report.timeline import Profiler
from ..run.signals import StopRequest
from ..run.weights import save_model
from .best import best_name
from .command import STARTED
from .evaluation import Evaluation
from .recipe import Change, Player
from .scan import Span, make_scan, several, spans
from .start import Start
from .step import Inputs, Setup, State, changed, make_step, make_update, moved_by
from .task import Task

if TYPE_CHECKING:
    from .recipes import Recipe

PATIENCE = 400
"""Steps in a row at which `Program.failed` has a reason before a run stops."""


@dataclasses.dataclass
class Run:
    """The steps of a run, with what they save, show and measure."""

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
        for span in self.spans(first):
            batch, step = feed.take(), span.start
            inputs = Inputs(batch, data_key, self.frozen)
            for number, change in enumerate(change for change in program.changes.values() if self.due(change, step)):
                own = jr.fold_in(change_key, step) if number == 0 else jr.fold_in(jr.fold_in(change_key, step), number)
                one = _first(inputs, span)._replace(key=own)
                state = changed(change.change, one, state, self.setup.mesh)
            if step == first and peak_of(jax.devices()[0].device_kind):
                due = program.due(1)  # the turns of most steps
                meter.flops = flops_of(make_update(self.setup, due), _first(inputs, span), state) / self.setup.mesh.size
            profiler.before(step, state)
            if span.count == 1:
                state, metrics = step_of(program.due(step))(inputs, state)
            else:
                state, metrics = step_of(None)(several(program, span, inputs, self.latest), state)
            done = step + span.count
            if found := profiler.after(done - 1, metrics):
                self.log.say(found)
            self.latest |= metrics
            if done % 8 == 0 or span.count > 1 or done == config.steps:
                # It waits: no more than 8 steps in flight, since virtual CPU devices hang from about 32.
                self.check(state, done)
            due = self.evaluation.due(done, config.eval_every) if done < config.steps else ()
            if done % config.log_every == 0 or done == config.steps or due:
                values = self.numbers()
                values = {
                    "examples": done * config.batch_size,
                    **values,
                    # The schedule counts the updates made.
                    "learning_rate": float(np.asarray(rate(done - 1 - int(values["skipped"])))),
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
            if stopping or done == config.steps or (done % config.checkpoint_every == 0 and self.sound(state, done)):
                self.save(done, state, feed)
            if config.sample_every and done % config.sample_every == 0 and done < config.steps:
                before = time.perf_counter()
                self.show(state, done)
                meter.pause(time.perf_counter() - before)  # the rate is of training alone
            if stopping:
                break
        profiler.close()
        return state

    def compiled(self, due: tuple[str, ...] | None) -> Callable:
        """The step of some turns, or those of a scan; lines say when its first call begins and ends to compile it."""
        step, calls = make_scan(self.setup) if due is None else make_step(self.setup, due), [0]

        def run(inputs: tuple, state: State) -> tuple[State, dict[str, Any]]:
            calls[0] += 1
            if calls[0] > 1:
                return step(inputs, state)
            of = "" if due is None or len(self.task.program.turns) == 1 else f" of {', '.join(due)}"
            what = f"{self.config.scan} steps in one call" if due is None else "the step"
            self.log.say(f"compiling {what}{of} ...")
            before = time.perf_counter()
            result = step(inputs, state)
            self.log.say(f"compiled in {time.perf_counter() - before:.1f} s")
            return result

        return run

    def due(self, change: Change, step: int) -> bool:
        """True if a change is made before a step: not where it would place anew what `--from` read."""
        placed = step == 0 and self.weights is not None and change.places and self.weights.covers(change.places)
        return change.due(step) and not placed

    def spans(self, first: int) -> Iterator[Span]:
        """The calls of the steps from one on."""
        changes = list(self.task.program.changes.values())
        changing = lambda step: any(self.due(change, step) for change in changes)
        return spans(first, self.config.steps, self.config.scan, changing)

    def feed(self, first: int) -> Feed:
        """The batches from a step on."""
        config, task = self.config, self.task
        order = Order(config.seed, config.batch_size, len(task.source), local_rows(self.setup.mesh, config.batch_size))
        return Feed(
            task.batch,
            task.source,
            order,
            to_devices(split(self.setup.mesh), config.batch_size),
            first=first,
            last=config.steps,
            config=config.data,
            counts=(span.count for span in self.spans(first)),
            place_several=to_devices(split_several(self.setup.mesh), config.batch_size, config.scan),
            say=self.log.say,
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
                raise UserError(f"{error}; {self._last_good(step - int(skipped.consecutive))}") from None
        if not (reason := program.failed(self.numbers()) if program.failed else ""):
            self.failing = None
        elif self.failing is None:
            self.failing = step
        elif step - self.failing >= PATIENCE:
            raise UserError(f"step {step}: {reason}, since step {self.failing}; {self._last_good(self.failing - 1)}")

    def sound(self, state: State, step: int) -> bool:
        """False, and a line, while training fails: another checkpoint would take the place of the last good one."""
        rows = max(int(skipped.consecutive) for skipped in state.skipped.values())
        if rows:
            self.log.say(f"no checkpoint at step {step}: the last {rows} updates could not be made")
        if self.failing is not None:
            self.log.say(f"no checkpoint at step {step}: training has failed since step {self.failing}")
        return not rows and self.failing is None

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

    def _last_good(self, before: int) -> str:
        self.checkpoints.wait()
        steps = [step for step in self.checkpoints.steps() if step <= before]
        return f"the last checkpoint before it is of step {steps[-1]}" if steps else "no checkpoint before it is kept"


def _first(inputs: Inputs, span: Span) -> Inputs:
    """The arguments of the first step of a call."""
    return inputs if span.count == 1 else inputs._replace(batch=jax.tree.map(lambda x: x[0], inputs.batch))
