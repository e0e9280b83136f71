"""Evaluate the averaged model of a finished or interrupted run.

  python -m train.evaluate --run runs/maskgit-mnist
  python -m train.evaluate --run runs/maskgit-mnist --evals classifier --n 10000 --mesh fsdp=8
  python -m train.evaluate --run runs/maskgit-mnist --evals fidelity cas --n 10000
  python -m train.evaluate --run runs/maskgit-mnist --guidance 3 --steps 16 --out guided.json
  python -m train.evaluate --run runs/maskgit-mnist --evals none --n 10000 --inception pt_inception.pth
  python -m train.evaluate --run runs/vqgan-cifar10 --lpips vgg vgg16-397923af.pth heads.pth
  python -m train.evaluate --run runs/gan-cifar10 --evals none --n 50000 --lpips vgg vgg16-397923af.pth heads.pth

Prints the numbers of the run's evaluators, or of those that --evals names, and writes them to evaluation.json in its
folder. They are those of summary.json where nothing but the devices differs. Options of sampling that are not given are
those of the run's config; `--run RUN --help` lists them.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ._errors import UsageError, UserError, require
from ._files import check_writable, write_json
from .config.evals import check_names
from .config.nets import LpipsNet
from .config.options import option
from .engine.command import run
from .engine.recipes import Finished, Recipe, asked_of_run
from .tasks.sampling import given, with_options

if TYPE_CHECKING:
    from .evaluators.base import Evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The run to evaluate, and its devices."""

    run: str = option()
    """Folder of the run."""
    evals: tuple[str, ...] = ()
    """Evaluators; by default all that the data allow but `fidelity` and `cas`."""
    n: int | None = None
    """Samples that the evaluators `classifier`, `fidelity` and `cas` take; by default as the run's config says."""
    inception: str | None = None
    """File of FID's Inception, pytorch-fid's: its scores of the samples are computed as well, called FID, sFID and IS
    with these weights alone."""
    reference: Literal["held_out", "training"] = "held_out"
    """With --inception: the real images that samples are compared with."""
    statistics: str | None = None
    """With --inception: .npz of mu and sigma of the real images, as other tools write it, in the place of images."""
    write_statistics: str | None = None
    """With --inception: .npz file that mu and sigma of the real images are written to."""
    lpips: tuple[str, ...] = ()
    """NET FEATURES HEADS, which are alex, vgg or squeeze, torchvision's file of it and the package lpips' file of its
    heads: LPIPS and SSIM of a run that reconstructs images, the perceptual path length of a run of train.gan, called
    PPL with the published vgg alone."""
    path_space: Literal["w", "z"] | None = None
    """With --lpips: latents of the path, style vectors (w) or normal ones (z); by default w of stylegan2, else z."""
    path_sampling: Literal["end", "full"] = "end"
    """With --lpips: lengths at the first end of each path, or at a uniform place of it."""
    path_epsilon: float = 1e-4
    """With --lpips: step along the path."""
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
        for flag, with_it, defaults in (
            ("inception", self.inception is not None, _OF_INCEPTION),
            ("lpips", bool(self.lpips), _OF_PATHS),
        ):
            for name, default in defaults.items():
                known = with_it or getattr(self, name) == default
                require(known, f"{name} goes with {flag}, which was not given")
        epsilon = self.path_epsilon
        require(1e-6 <= epsilon < 1, f"path_epsilon must be in [1e-6, 1), as float32 resolves: got {epsilon}")
        given = self.statistics is None or (self.write_statistics is None and self.reference == "held_out")
        require(given, "statistics takes the place of images: leave write_statistics and reference out")
        written = self.write_statistics
        require(written is None or written.endswith(".npz"), f"write_statistics must end in .npz: got {written!r}")
        nets = get_args(LpipsNet)
        fits = not self.lpips or (len(self.lpips) == 3 and self.lpips[0] in nets)
        require(fits, f"lpips must be one of {', '.join(nets)} and two files: got {' '.join(self.lpips)}")


_OF_INCEPTION = {"statistics": None, "write_statistics": None, "reference": "held_out"}
_OF_PATHS = {"path_space": None, "path_sampling": "end", "path_epsilon": 1e-4}


def main(argv: Sequence[str]) -> int:
    recipe, record, asked = asked_of_run("evaluate", __doc__ or "", argv, Options, form_of)
    folder = Path(asked.run)
    finished = recipe.open(folder, record, folder / "config.json")
    config, (kind, field) = finished.config, _options_of(recipe)
    check_names(asked.evals, config.EVALS)
    changed: dict[str, Any] = {"run_dir": asked.run, "mesh": asked.mesh, "evals": (), "keep_best": ""}
    if asked.n is not None:
        if not hasattr(config, "eval_samples"):
            raise UsageError(f"--n goes with samples that are judged, which train.{record['recipe']} has none of")
        changed["eval_samples"] = asked.n
    sampling = {} if kind is None else given(asked, kind)
    if sampling:
        changed |= {field: dataclasses.replace(getattr(config, field), **sampling)} if field else sampling
    with _own_flags(field):
        finished = dataclasses.replace(finished, config=dataclasses.replace(config, **changed))
    return evaluate(finished, asked, sampling)


def form_of(recipe: Recipe) -> type[Options]:
    """The flags for runs of a recipe: with the options of its sampler, where its samples are evaluated."""
    kind, field = _options_of(recipe)
    return Options if kind is None else with_options(Options, kind, f"{field}." if field else "")


def _options_of(recipe: Recipe) -> tuple[type | None, str]:
    """Class of the options of sampling, and the field of the config that has them; "" where they are the config's."""
    if recipe.options is None or isinstance(recipe.options, type):
        return recipe.options, ""
    return type(getattr(next(iter(recipe.presets.values())), recipe.options)), recipe.options


@contextlib.contextmanager
def _own_flags(field: str) -> Iterator[None]:
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
    from .run.folder import differing
    from .run.signals import StopRequest

    start(options.coordinator, options.num_processes, options.process_id)
    use_cache(finished.config.compile_cache)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    mesh = make_mesh(options.mesh)
    where = finished.folder / "evaluation.json" if options.out is None else Path(options.out)
    if is_first():
        check_writable(where, "--out" if options.out is not None else "--run")
        if options.write_statistics is not None:
            check_writable(Path(options.write_statistics), "--write-statistics")
    say = print if is_first() else lambda text: None
    with StopRequest() as stop:
        with _own_flags(_options_of(finished.recipe)[1]) if sampling else contextlib.nullcontext():
            task = finished.recipe.task(finished.config, finished.folder)
        known, now = finished.facts.to_record(), task.facts.to_record()
        known.pop("autoencoder", None)  # a path, which may move
        if others := differing(known, now):
            raise UserError(f"--run {options.run}: its data or tokenizer are not those of its training: {others}")
        evaluators = (
            *chosen(options.evals, task.evaluators),
            *published(options, task.evaluators, finished.recipe.name),
        )
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
        asked = {"sampling": dict(sampling)} if sampling else {}
        write_json(where, {"recipe": finished.recipe.name, **asked, **numbers, **evaluation.notes(), **cost})
        for name, value in numbers.items():
            print(f"{name:28} {value:.4g}")
        print(f"done: {where}")
    return 0


def published(options: Options, offered: "Sequence[Evaluator]", recipe: str) -> "tuple[Evaluator, ...]":
    """The evaluators by published networks that are asked for.

    Raises:
        UsageError: the run has no images that are judged, or they do not fit.
        UserError: a file is missing, damaged, or of something else.
    """
    if options.inception is None and not options.lpips:
        return ()
    from .evaluators.published import inception_scores, pair_scores, path_scores

    judged = next((evaluator.judged for evaluator in offered if evaluator.judged is not None), None)
    if judged is None:
        flag = "--inception" if options.inception is not None else "--lpips"
        raise UsageError(f"{flag} goes with images that are judged, which train.{recipe} has none of")
    found = []
    if options.inception is not None:
        path = lambda text: None if text is None else Path(text)
        files = {"statistics": path(options.statistics), "written": path(options.write_statistics)}
        found.append(inception_scores(judged, Path(options.inception), reference=options.reference, **files))
    if options.lpips:
        net, *of_net = options.lpips[0], *map(Path, options.lpips[1:])
        along = {name.removeprefix("path_"): getattr(options, name) for name in _OF_PATHS}
        changed = [name for name, default in _OF_PATHS.items() if getattr(options, name) != default]
        if judged.path is None and changed:
            flag = changed[0].replace("_", "-")
            raise UsageError(f"--{flag} goes with runs of train.gan: got one of train.{recipe}")
        scores = (
            pair_scores(judged, net, *of_net) if judged.path is None else path_scores(judged, net, *of_net, **along)
        )
        found.append(scores)
    return tuple(found)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
