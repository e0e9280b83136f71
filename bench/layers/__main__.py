"""Every layer against its counterpart of equinox.nn and of PyTorch, on the CPU, forward and with all gradients.

    python -m bench.layers [--rounds 15] [--only NAME,NAME] [--out bench/results/cpu]

The rows are those of `bench/layers_*.py`; with `--only` those whose names hold one of the words, and the file keeps its
other rows. All contenders of a row run in one process, with two threads each; each round runs every one, in an order
that turns, and the ratios are medians over the rounds of that round's ratio. Each has the layout of its own library.
"""

import argparse
import importlib
import json
import os
import pathlib
import statistics
from typing import Any

import jax

from bench.layers.race import PHASES, Race
from bench.ops.norm import race

RIVALS = ("equinox", "torch")
# Ours may take this many times a rival's time.
TARGET = 1.1


def races() -> dict[str, Race]:
    names = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("rows_*.py"))
    return {
        layer: row for name in names for layer, row in importlib.import_module(f"bench.layers.{name}").RACES.items()
    }


def measure(name: str, row: Race, rounds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"layer": name}
    for phase, runs in row.runs().items():
        # Calls that are timed together, so that each takes some milliseconds.
        slowest = max(statistics.median(times) for times in race(runs, 2, 1).values())
        times = race(runs, rounds, max(1, min(20, int(5 / slowest))))
        ratios = {n: statistics.median(o / t for t, o in zip(times[n], times["ours"])) for n in times if n != "ours"}
        result[phase] = {
            "median ms": {n: round(statistics.median(t), 3) for n, t in times.items()},
            "ours over": {n: round(ratio, 2) for n, ratio in ratios.items()},
        }
    return result


def table(results: list[dict[str, Any]]) -> str:
    """How many times a rival's time ours takes, in Markdown, and which are over the target."""
    head = ["layer", "phase", "ours ms", *(f"ours / {rival}" for rival in RIVALS)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in results:
        for phase in PHASES:
            ratios = row[phase]["ours over"]
            marked = {
                rival: f"**{ratio:.2f}**" if ratio > TARGET else f"{ratio:.2f}" for rival, ratio in ratios.items()
            }
            cells = [marked.get(rival, "") for rival in RIVALS]
            lines.append(
                "| " + " | ".join([row["layer"], phase, f"{row[phase]['median ms']['ours']:.2f}", *cells]) + " |"
            )
    return "\n".join(lines) + f"\n\nOver {TARGET} in bold.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=[""], type=lambda text: text.split(","))
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name, row in races().items():
        if any(word in name for word in options.only):
            found[name] = measure(name, row, options.rounds)
            print("\n".join(table([found[name]]).splitlines()[2:4]), flush=True)
    if options.out:
        keep(found, options.out, options.rounds)


def keep(found: dict[str, dict[str, Any]], folder: pathlib.Path, rounds: int) -> None:
    """Writes the rows over those of the same names, in the table's order."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "layers.json"
    old = {row["layer"]: row for row in json.loads(path.read_text())["results"]} if path.is_file() else {}
    results = [(old | found)[name] for name in races() if name in old | found]
    head = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "rounds": rounds}
    path.write_text(json.dumps({**head, "results": results}, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
