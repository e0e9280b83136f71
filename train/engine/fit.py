"""A run from its folder to its summary."""

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import PyTree

from .._files import read_json
from ..checkpoint import Checkpoints
from ..config.base import TrainConfig
from ..config.options import free
from ..evaluators.base import Evaluator, chosen
from ..evaluators.stream import Stream
from ..parallel import check_batch, check_heads, make_mesh, place
from ..parallel.processes import from_first, is_first, start
from ..report.log import Log, Mute
from ..report.sinks import Sink, TensorBoard, WeightsAndBiases
from ..run.folder import RunFolder
from ..run.growth import growth, newest_step, told
from ..run.signals import StopRequest
from ..run.weights import digest
from .axes import check_axes
from .best import check_best
from .compile_cache import use_cache
from .evaluation import Evaluation
from .finish import finish
from .host_memory import keep_freed_memory
from .loop import Run
from .start import Start, matched, opened
from .step import Setup, abstract_state, sharded_state
from .task import Task
from .tuning import tuned_task

if TYPE_CHECKING:
    from .recipes import Recipe


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
    if any(mesh.shape[name] > 1 for name in ("expert", "pipeline", "context")):
        check_axes(recipe.program(config, recipe.on_paper(config)), mesh)
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
        setup = Setup.of(config, task.program, mesh, on_cpu=on_cpu)
        shapes = abstract_state(setup)
        check_heads(shapes.model, mesh)  # before the folder says that it holds a run
        data = {"sha256": task.fingerprint, "examples": len(task.source)} if task.fingerprint else None
        frozen = task.program.frozen()
        began_from = None if weights is None else weights.record
        run.describe(
            task.facts.to_record(), data, changed=config.data.changed, frozen=digest(task.own(frozen)), start=began_from
        )
        if longer is not None:
            run.grow(longer)
        from_first(lambda: task.prepare(run.path))
        return _fit(config, recipe, task, evaluators, frozen, setup, shapes, run, weights)


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
    shapes: PyTree,
    run: RunFolder,
    weights: Start | None,
) -> int:
    folder, record = run.path, run.record
    key = jr.key(config.seed)
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
            loop = Run(
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
            return finish(loop, state, parameters, stop)


def sinks_of(config: TrainConfig, folder: Path, first: int, record: dict[str, Any]) -> list[Sink]:
    """Loggers beside metrics.jsonl."""
    board = TensorBoard(folder, first, record)
    return [board] if config.wandb is None else [board, WeightsAndBiases(folder, config.wandb, record)]
