"""Evaluate the averaged model of a finished or interrupted run.

  python -m train.evaluate --run runs/maskgit-mnist
  python -m train.evaluate --run runs/maskgit-mnist --evals classifier --n 10000 --mesh fsdp=8
  python -m train.evaluate --run runs/maskgit-mnist --evals fidelity cas --n 10000
  python -m train.evaluate --run runs/maskgit-mnist --guidance 3 --steps 16 --out guided.json

Prints the numbers of the run's evaluators, or of those that --evals names, and writes them to evaluation.json in its
folder. They are those of summary.json where nothing but the devices differs. Options of sampling that are not given are
those of the run's config; `--run RUN --help` lists them.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._errors import UsageError, require
from ._files import write_json
from .config.evals import check_names
from .config.options import option
from .engine.command import run
from .engine.recipes import Finished, Recipe, asked_of_run
from .tasks.sampling import given, with_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The run to evaluate, and its devices."""

    run: str = option()
    """Folder of the run."""
    evals: tuple[str, ...] = ()
    """Evaluators; by default all that the data allow but `fidelity` and `cas`."""
    n: int | None = None
    """Samples that the evaluators `classifier`, `fidelity` and `cas` take; by default as the run's config says."""
    out: str | None = None
    """JSON file of the numbers; by default evaluation.json in the run's folder."""
    mesh: str = ""
    """Mesh of the devices, such as fsdp=8. By default every device has a copy."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes evaluate together and neither a TPU pod nor SLURM says so."""
    num_processes: int | None = None
    """With --coordinator: how many processes there are."""
    process_id: int | None = None
    """With --coordinator: which of them this is, from 0."""

    def __post_init__(self):
        require(self.n is None or self.n >= 2, f"n must be at least 2: got {self.n}")
        periodic = [word for word in self.evals if ":" in word]
        require(not periodic, f"evals must be names without a period: got {' '.join(periodic)}")


def main(argv: Sequence[str]) -> int:
    recipe, record, asked = asked_of_run("evaluate", __doc__ or "", argv, Options, form_of)
    folder = Path(asked.run)
    finished = recipe.open(folder, record, folder / "config.json")
    config, field, kind = finished.config, recipe.options, _options_of(recipe)
    check_names(asked.evals, config.EVALS)
    changed: dict[str, Any] = {"run_dir": asked.run, "mesh": asked.mesh, "evals": (), "keep_best": ""}
    if asked.n is not None:
        if not hasattr(config, "eval_samples"):
            raise UsageError(f"--n goes with samples that are judged, which train.{record['recipe']} has none of")
        changed["eval_samples"] = asked.n
    sampling = {} if kind is None else given(asked, kind)
    if sampling:
        changed[str(field)] = dataclasses.replace(getattr(config, str(field)), **sampling)
    with _own_flags(field):
        finished = dataclasses.replace(finished, config=dataclasses.replace(config, **changed))
    return evaluate(finished, asked, sampling)


def form_of(recipe: Recipe) -> type[Options]:
    """The flags for runs of a recipe: with the options of its sampler, where its samples are evaluated."""
    kind = _options_of(recipe)
    return Options if kind is None else with_options(Options, kind, f"{recipe.options}.")


def _options_of(recipe: Recipe) -> type | None:
    preset = next(iter(recipe.presets.values()))
    return None if recipe.options is None else type(getattr(preset, recipe.options))


@contextlib.contextmanager
def _own_flags(field: str | None) -> Iterator[None]:
    """Errors about a recipe's options of sampling name the flags of this command."""
    try:
        yield
    except (ValueError, UsageError) as error:
        raise UsageError(f"--{str(error).removeprefix('--').removeprefix(f'{field}.')}") from None


def evaluate(finished: Finished, options: Options, sampling: Mapping[str, Any]) -> int:
    """Runs the evaluators; gives the exit status.

    Args:
        sampling: the options of sampling that were given, for the file of the numbers.
    """
    import jax

    from .engine.compile_cache import use_cache
    from .engine.evaluation import Evaluation
    from .engine.host_memory import keep_freed_memory
    from .evaluators.base import chosen
    from .evaluators.stream import Stopped, Stream
    from .parallel import make_mesh, place
    from .parallel.processes import is_first, start
    from .run.signals import StopRequest

    start(options.coordinator, options.num_processes, options.process_id)
    use_cache(finished.config.compile_cache)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    mesh = make_mesh(options.mesh)
    say = print if is_first() else lambda text: None
    with StopRequest() as stop:
        with _own_flags(finished.recipe.options) if sampling else contextlib.nullcontext():
            task = finished.recipe.task(finished.config, finished.folder)
        evaluators = chosen(options.evals, task.evaluators)
        model = finished.model(mesh)
        evaluation = Evaluation(evaluators, place(task.program.frozen(), mesh), Stream(mesh, stop.agreed, say))
        try:
            numbers = evaluation.run(model, evaluators)
        except Stopped:
            say(f"{stop.received.name if stop.received else 'signal'}: the evaluation ends without its numbers")
            return stop.status
    if is_first():
        device = f"{mesh.size} x {jax.devices()[0].device_kind}"
        cost = {"evaluation_seconds": round(evaluation.seconds, 2), "jax_version": jax.__version__, "device": device}
        where = finished.folder / "evaluation.json" if options.out is None else Path(options.out)
        asked = {"sampling": dict(sampling)} if sampling else {}
        write_json(where, {"recipe": finished.recipe.name, **asked, **numbers, **evaluation.notes(), **cost})
        for name, value in numbers.items():
            print(f"{name:28} {value:.4g}")
        print(f"done: {where}")
    return 0


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
