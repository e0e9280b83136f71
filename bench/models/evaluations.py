"""Fréchet distance of samples on the judge's features against evaluations of the denoiser, for every sampler that fits
a finished run:

  python -m bench.models.evaluations --run runs/diffusion-digits
  python -m bench.models.evaluations --run runs/diffusion-mnist-meanflow --samplers average --evaluations 1 2 4

Guidance and grid are those of the run. A sampler has as many steps as its evaluations allow, one of second order half
of them; reported are the evaluations that it made. Beside the samplers is the distance of the training images,
the floor. Writes a row after each sampler and number, few evaluations first, and the plot at the end; begins no row
after --minutes, and the same command again makes what is missing. The interval of 95 % is a bootstrap's over the
samples. rk45, which divides its steps by its tolerances, has the least of `TOLERANCES` that its evaluations allow.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, PyTree

from bench import machine
from eqxgen.configs.diffusion import SAMPLERS
from eqxgen.metrics import FeatureRows, Features, frechet_distance, frechet_interval, weights_sha256
from eqxgen.metrics.frechet import statistics_of
from train import diffusion
from train._errors import UsageError
from train._files import read_json
from train.data import load
from train.engine.recipes import Finished, recipe_of
from train.evaluators.examples import held_out_images, training_images
from train.evaluators.fidelity import Rounded
from train.evaluators.judge import judge_of, looked_at
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.denoised import counted, tree_of
from train.tasks.draw import labelled
from train.tasks.encoded.latents import autoencoder_of_run, latents_of

EVALUATIONS = (1, 2, 4, 8, 18, 50)
PER_STEP = {"rk4": 4} | dict.fromkeys(("heun", "flow_heun", "churn", "dpm2", "dpmpp_2s"), 2)
"""Evaluations in a step, of samplers that make more than one; of the last step, which ends at 0, there is one."""
BEFORE = {"pndm": 1}
"""Evaluations of the first step beside its own."""
NOISY = ("dpmpp_2m_sde", "dpmpp_3m_sde")
"""Samplers that have eta 1, as they would otherwise be those without noise."""
ADAPTIVE = "rk45"
TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Relative and absolute tolerance of the adaptive sampler."""
RESULTS = pathlib.Path(__file__).parents[1] / "results"
DOCS = RESULTS.parents[1] / "docs"


class Measured(eqx.Module):
    """(parts and judge, example) -> the judge's features of a sample, and the passes of the network."""

    levels: int = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        parts, judge = tree
        drawn, evaluations = counted(parts, example)
        image = Rounded(_given, self.levels)(drawn, example)
        return judge.features(image), evaluations


def _given(image: Array, example: Any) -> Array:
    return image


def opened(folder: pathlib.Path) -> Finished:
    """The run of a folder."""
    path = folder / "config.json"
    record = read_json(path)
    found = recipe_of(record, path).open(folder, record, path)
    if found.recipe.name != "diffusion":
        raise UsageError(f"--run {folder}: must be a run of train.diffusion: got one of train.{found.recipe.name}")
    return found


def steps_of(sampler: str, evaluations: int) -> int:
    """Most steps of a sampler within some evaluations."""
    each = PER_STEP.get(sampler, 1)
    return max(1, (evaluations - BEFORE.get(sampler, 0) + each - 1) // each)


def distinct(samplers: Sequence[str], evaluations: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Pairs of a sampler and evaluations, the fewest first, without those whose steps fewer evaluations allow too."""
    for place, count in enumerate(counts := sorted(set(evaluations))):
        for name in samplers:
            if name == ADAPTIVE or steps_of(name, count) not in {steps_of(name, fewer) for fewer in counts[:place]}:
                yield name, count


class Judged:
    """A run, and the judge's features of real images."""

    def __init__(self, run: Finished, count: int):
        self.run, self.stream = run, Stream(make_mesh())
        self.dataset = load(run.config.data)
        self.judge = judge_of(self.dataset, self.stream).model
        self.features = Features("judge", weights_sha256(self.judge))
        real = lambda images: looked_at(self.judge, images, FeatureRows(features=self.features), self.stream)[1]
        self.reference = statistics_of("reference", real(held_out_images(self.dataset)))
        self.floor = frechet_distance(real(training_images(self.dataset)), self.reference)
        self.labels = labelled(np.arange(count) % run.facts.classes)
        self.latents = latents_of(run.config.autoencoder, run.facts)
        autoencoder = autoencoder_of_run(run.folder, run.config.autoencoder, run.facts) if self.latents else None
        self.parts = run.model(), autoencoder
        self.adaptive: dict[float, dict[str, Any]] = {}

    def row(self, sampler: str, evaluations: int, seed: int) -> dict[str, Any]:
        """Distance, interval and cost of a sampler. `UsageError` where it does not fit the run."""
        if sampler == ADAPTIVE and evaluations > 1:
            return self._adaptive(evaluations, seed)
        eta = {"eta": 1.0} if sampler in NOISY else {}
        return self._row(evaluations, seed, sampler=sampler, steps=steps_of(sampler, evaluations), **eta)

    def _adaptive(self, evaluations: int, seed: int) -> dict[str, Any]:
        """The row of the least tolerance whose mean evaluations are as many or fewer."""
        found: dict[str, Any] = {}
        row: dict[str, Any] = {}
        for tolerance in TOLERANCES:
            if tolerance not in self.adaptive:
                given = {"rtol": tolerance, "atol": tolerance}
                row = self._row(evaluations, seed, sampler=ADAPTIVE, steps=2, **given)
                self.adaptive[tolerance] = row | {"tolerance": tolerance}
            row = self.adaptive[tolerance]
            if row["evaluations"] > evaluations:
                break
            found = row | {"asked": evaluations}
        if not found:
            raise UsageError(f"{ADAPTIVE} has {row['evaluations']} evaluations at its largest tolerance")
        return found

    def _row(self, evaluations: int, seed: int, **given: Any) -> dict[str, Any]:
        options = dataclasses.replace(self.run.config.sampling, **given)
        try:
            rules = diffusion.rules(dataclasses.replace(self.run.config, sampling=options), self.run.facts)
        except ValueError as error:
            raise UsageError(str(error)) from None
        tree = tree_of(*self.parts, rules, seed, self.latents), self.judge
        rows, passes, began = FeatureRows(features=self.features), [], time.perf_counter()
        for found, spent in self.stream.map(Measured(self.dataset.levels), tree, self.labels):
            rows, passes = rows.update(found), [*passes, *spent.tolist()]
        low, high = frechet_interval(rows.result(), self.reference)
        told = getattr(self.parts[0], "guided", False)  # guidance is an input of the network
        doubled = 1 if rules.guide is None or told else 2
        return {
            "sampler": options.sampler,
            "asked": evaluations,
            "steps": options.steps,
            "evaluations": round(float(np.mean(passes)) / doubled, 2),
            "passes": round(float(np.mean(passes)), 2),
            "fd_judge": frechet_distance(rows, self.reference),
            "low": low,
            "high": high,
            "seconds": round(time.perf_counter() - began, 1),
        }


def measured(
    judged: Judged, wanted: Iterable[tuple[str, int]], path: pathlib.Path, about: dict[str, Any], minutes: float
) -> dict[str, Any]:
    """The file's rows with those that are missing, each written as it is made.

    Args:
        minutes: after which no row begins.

    Raises:
        SystemExit: the file is of another run, judge or number of samples.
    """
    content = read_json(path) if path.is_file() else {"about": about, "rows": [], "left out": {}}
    known = {name: content["about"].get(name) for name in ("model_sha256", "judge_sha256", "samples", "seed")}
    if other := [name for name, value in known.items() if value != about[name]]:
        raise SystemExit(f"error: {path}: has rows of another {other[0]}: {known[other[0]]}; give another --out")
    done = {(row["sampler"], row["asked"]) for row in content["rows"]}
    end = time.monotonic() + 60 * minutes
    missing = [pair for pair in wanted if pair not in done]
    for place, (sampler, evaluations) in enumerate(missing):
        if time.monotonic() > end:
            print(f"{minutes:g} minutes are over: {len(missing) - place} rows are missing", flush=True)
            break
        try:
            row = judged.row(sampler, evaluations, about["seed"])
        except UsageError as error:
            content["left out"][f"{sampler} {evaluations}"] = str(error)
        else:
            content["rows"].append(row)
            print(
                f"{sampler:14} {evaluations:3} {row['fd_judge']:8.3f} [{row['low']:.3f}, {row['high']:.3f}]", flush=True
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


def plot(content: dict[str, Any], path: pathlib.Path) -> None:
    """Distance against evaluations, a line for each sampler."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    names = sorted({row["sampler"] for row in content["rows"]})
    for number, name in enumerate(names):
        rows = sorted((row for row in content["rows"] if row["sampler"] == name), key=lambda row: row["evaluations"])
        x, y, low, high = ([row[key] for row in rows] for key in ("evaluations", "fd_judge", "low", "high"))
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3], "linewidth": 1.1}
        axis.plot(x, y, label=name, marker="o", markersize=3, **style)
        axis.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)
    axis.axhline(content["about"]["floor"], color="grey", linewidth=1, label="training images")
    axis.set(xscale="log", yscale="log", xlabel="evaluations of the denoiser", ylabel="fd_judge, 95 % interval")
    axis.set_xticks(EVALUATIONS, [str(count) for count in EVALUATIONS])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of a run of train.diffusion")
    parser.add_argument("--n", type=int, default=1000, help="samples of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--evaluations", nargs="+", type=int, default=list(EVALUATIONS))
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no row begins")
    parser.add_argument("--out", type=pathlib.Path, help="JSON; by default in bench/results of the device")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG; by default in docs")
    asked = parser.parse_args()
    run = opened(asked.run)
    name = f"evaluations_{run.config.preset.replace('-', '_')}"
    out = asked.out or machine.folder(machine.device()) / f"{name}.json"
    judged = Judged(run, asked.n)
    sampling = dataclasses.asdict(run.config.sampling)
    about = {
        "preset": run.config.preset,
        "steps of training": run.config.steps,
        "model_sha256": weights_sha256(run.model()),
        "judge_sha256": judged.features.sha256,
        "samples": asked.n,
        "reference": len(judged.dataset.test_labels),
        "seed": asked.seed,
        "floor": judged.floor,
        "sampling": {key: sampling[key] for key in ("guidance", "interval", "grid", "rho", "sigma_min", "sigma_max")},
        **machine.about(),
    }
    content = measured(judged, distinct(asked.samplers, asked.evaluations), out, about, asked.minutes)
    plot(content, asked.plot or DOCS / f"{name}.png")
    print(f"{len(content['rows'])} rows in {out}")


if __name__ == "__main__":
    main()
