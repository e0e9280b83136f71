"""Halton's order against confidence and random order at 4, 8 and 16 steps, on a trained MaskGIT of digits, and random
order with tokens that are masked or drawn again: `python -m bench.models.decoding_orders --run runs/maskgit-digits`.

Both judges of `--evals fidelity`. Every cell has the same keys, labels, guidance and temperatures, those of the run.
Writes bench/results/cpu/decoding_orders.json: `fd_judge` with its bootstrap interval, accuracy and recall with Wilson's
intervals of 95 %, over the samples and over the held-out images.
"""

import argparse
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax.random as jr
import numpy as np

from train.config.evals import JUDGES
from train.data import load
from train.engine.recipes import Finished, recipe_of
from train.evaluators.fidelity import fidelity
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.draw import drawn, labelled
from train.tasks.masked import draw_masked
from train.tasks.tokenizers import tokenizer_of_run

RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "decoding_orders.json"
SAMPLERS: dict[str, dict[str, Any]] = {
    "confidence": {"order": "confidence"},
    "halton": {"order": "halton", "schedule": "arccos"},
    "random": {"order": "random", "schedule": "arccos"},
    "remasked": {"order": "random", "schedule": "arccos", "remask": 0.1},
    "edited": {"order": "random", "schedule": "arccos", "edit": 0.1},
}
STEPS = (4, 8, 16)


def opened(folder: str) -> Finished:
    """A finished run."""
    path = pathlib.Path(folder)
    record = json.loads((path / "config.json").read_text())
    return recipe_of(record, path).open(path, record, path)


def wilson(share: float, count: int, z: float = 1.96) -> list[float]:
    """Interval of 95 % of a share of so many."""
    middle, spread = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return [(middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)]


def judged(run: Finished, samplers: Iterable[Any], samples: int, key: int = 1) -> Iterable[Mapping[str, Any]]:
    """Numbers of each sampler, a function (model, label, key=) -> ids, on the averaged model of a run."""
    mesh = make_mesh("")
    dataset, stream, model = load(run.config.data), Stream(mesh), run.model(mesh)
    tokenizer = tokenizer_of_run(run.folder, run.config.tokenizer, run.facts)
    labels = labelled(np.arange(samples) % run.facts.classes)
    parts = lambda model, sampler: (model, tokenizer, sampler, jr.key(key))
    scores = fidelity(dataset, drawn, labels, parts)
    for sampler in samplers:
        found, row = scores.run(model, sampler, stream), {}
        for judge in JUDGES:
            low, high = found[f"fd_{judge}_low"], found[f"fd_{judge}_high"]
            row |= {f"fd_{judge}": found[f"fd_{judge}"], f"fd_{judge}_interval": [low, high]}
            for name, count in (("accuracy", samples), ("recall", len(dataset.test_labels))):
                share = found[f"{name}_{judge}"]
                row |= {f"{name}_{judge}": share, f"{name}_{judge}_interval": wilson(share, count)}
            row[f"precision_{judge}"] = found[f"precision_{judge}"]
        yield row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", default="runs/maskgit-digits")
    parser.add_argument("--n", type=int, default=1000)
    asked = parser.parse_args()
    run = opened(asked.run)
    plain, cells = run.config.decode, [(name, steps) for name in SAMPLERS for steps in STEPS]
    decodes = (dataclasses.replace(plain, steps=steps, **SAMPLERS[name]) for name, steps in cells)
    samplers = (draw_masked(dataclasses.replace(run.config, decode=decode), run.facts) for decode in decodes)
    settings = {"guidance": plain.guidance, "choice_temperature": plain.choice_temperature}
    table: list[Mapping[str, Any]] = []
    for (name, steps), numbers in zip(cells, judged(run, samplers, asked.n)):
        table.append({"sampler": name, "steps": steps, **numbers})
        print(json.dumps(table[-1]))
        RESULT.write_text(json.dumps({"samples": asked.n, **settings, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
