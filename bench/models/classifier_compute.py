"""Accuracy of small classifiers of CIFAR-10 against the operations of their training: `EQXGEN_DATA=DATA python -m
bench.models.classifier_compute`.

A ResNet-20 and a ViT by `train.classify` on the training images of the data folder; a finished run is not repeated.
Writes bench/results/cpu/classifier_compute.json: of each the operations of an update, forward and backward as `mfu`
counts them, and the accuracy on the held-out images along training. Once both are there, draws
docs/classifiers_compute.png.
"""

import argparse
import json
import pathlib
from typing import Any

from bench.models.runs import lines_of, trained
from train import classify
from train.config.base import parse
from train.engine.dryrun import abstract_update
from train.parallel import make_mesh
from train.report.peak import flops_of

ROOT = pathlib.Path(__file__).parents[2]
PICTURE, RESULT = (
    ROOT / "docs" / "classifiers_compute.png",
    ROOT / "bench" / "results" / "cpu" / "classifier_compute.json",
)
NETS: dict[str, list[str]] = {
    "ResNet-20": ["--preset=cifar10"],
    "ViT": [
        *("--preset=cifar10-vit", "--batch-size=64", "--mix.mixup=0", "--mix.cutmix=0", "--data.augment.operations=0"),
        *("--vit.dim=96", "--vit.depth=4", "--vit.heads=3", "--vit.hidden-dim=384", "--vit.pool=mean"),
        *("--optim.name=muon", "--optim.learning-rate=5e-3", "--optim.warmup=50", "--ema.decay=0.99"),
    ],
}
"""Flags of train.classify."""


def measured(flags: list[str], folder: pathlib.Path) -> dict[str, Any]:
    """Operations of an update, and the accuracies by step."""
    summary = trained(classify, folder, flags)
    config = parse("classify", classify.Config, classify.PRESETS, "", flags)
    program = classify.program(config, classify.RECIPE.on_paper(config))
    update, inputs, state = abstract_update(config, program, make_mesh(""))
    found = {step: line["eval_accuracy"] for step, line in lines_of(folder).items() if "eval_accuracy" in line}
    found[summary["steps"]] = summary["eval_accuracy"]
    costs = {name: summary[name] for name in ("parameters", "cpu_seconds", "seconds") if name in summary}
    return {"batch": config.batch_size, "flop": flops_of(update, inputs, state), "accuracy": found} | costs


def picture(results: dict[str, Any]) -> None:
    """Accuracy against operations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, found in results.items():
        points = [(int(step) * found["flop"] / 1e15, value) for step, value in found["accuracy"].items()]
        axes.plot(*zip(*sorted(points)), label=f"{name}, {found['parameters'] / 1e6:.2f} M", marker="o", markersize=3)
    axes.set(xlabel="PFLOP of training", ylabel="accuracy on held-out images")
    axes.locator_params(axis="x", nbins=6)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, dpi=100, metadata={"Software": None})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=250, help="steps between accuracies")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/classifier_compute"))
    asked = parser.parse_args()
    flags = [f"--steps={asked.steps}", "--sample-every=0", "--log-every=50", "--evals", f"labels:{asked.every}"]
    for name in asked.nets:
        found = measured([*NETS[name], *flags], asked.runs / name)
        results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps(results | {name: found}, indent=1) + "\n")
        print(name, json.dumps(found))
    results = json.loads(RESULT.read_text())
    if len(results) == len(NETS):
        picture({name: results[name] for name in NETS})


if __name__ == "__main__":
    main()
