"""A small DCGAN of 20,000 CIFAR-10 photographs without augmentation, with DiffAugment and with ADA, at equal steps:
`python -m bench.models.gan.augmentation`, where EQXGEN_DATA names a folder that has cifar10/.

Runs of `python -m train.gan --preset cifar10-small`; a finished run is not repeated. Writes
bench/results/cpu/gan_augmentation.json: for each way the accuracy of a classifier on samples and their Fréchet distance
in its features along training, the discriminator's signs and p beside them, and both judges' numbers at the end. Once
all are there, draws docs/gan_augmentation.png: the curves, and the last grid of samples of each.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from bench.models.runs import lines_of, trained
from train import gan

PICTURE = pathlib.Path(__file__).parents[3] / "docs" / "gan_augmentation.png"
RESULT = pathlib.Path(__file__).parents[2] / "results" / "cpu" / "gan_augmentation.json"
WAYS: dict[str, list[str]] = {
    "none": [],
    "diffaugment": ["--augmentation=diffaugment"],
    "ada": ["--augmentation=ada", "--target=0.6", "--speed=50000"],
}
CURVE = ("sample_accuracy", "sample_frechet", "r_t", "real_logit", "fake_logit", "augmentation_p", "diversity")
"""Numbers of the curve: of the classifier, and of training at the same step."""


def measured(way: str, folder: pathlib.Path, flags: Sequence[str]) -> dict[str, Any]:
    """Curve and last numbers of a way's run, which is trained unless it is finished."""
    summary = trained(gan, folder, [*WAYS[way], *flags])
    lines = lines_of(folder)
    lines[summary["steps"]] |= summary
    curve = [{"step": step} | {name: line[name] for name in CURVE} for step, line in lines.items() if CURVE[0] in line]
    return {"curve": curve, "last": summary}


def picture(results: dict[str, Any], runs: pathlib.Path) -> None:
    """Curves of the Fréchet distance, and beside them the last samples of each way, a row for each class."""
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(3.4 * (1 + len(results)), 4.6), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(results))
    for (way, found), axis in zip(results.items(), others, strict=True):
        points = [(point["step"], point["sample_frechet"]) for point in found["curve"]]
        first.plot(*zip(*points), label=way, marker="o", markersize=3)
        axis.imshow(np.asarray(Image.open(max((runs / way / "samples").glob("step-*.png")))))
        axis.set(title=way)
        axis.axis("off")
    first.set(yscale="log", xlabel="step of 64 images", ylabel="Fréchet distance in the features of the classifier")
    first.grid(alpha=0.3)
    first.legend()
    figure.savefig(PICTURE, dpi=90, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=gan.PRESETS["cifar10-small"].steps)
    parser.add_argument("--every", type=int, default=1000, help="steps between points of the curve")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/gan_augmentation"))
    asked = parser.parse_args(argv)
    flags = ["--preset=cifar10-small", f"--steps={asked.steps}", f"--sample-every={asked.steps // 8}"]
    flags += ["--evals", f"classifier:{asked.every}", "fidelity"]
    for way in asked.ways:
        found = measured(way, asked.runs / way, flags)
        results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        every = results | {way: found}
        results = {name: every[name] for name in WAYS if name in every}
        RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        if len(results) == len(WAYS):
            picture(results, asked.runs)
        print(way, json.dumps(found["curve"][-1]))


if __name__ == "__main__":
    main()
