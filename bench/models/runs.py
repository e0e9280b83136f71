"""Runs of recipes that benchmarks make, or read where they are finished."""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from train.config.base import parse


def trained(recipe: Any, folder: pathlib.Path, flags: Sequence[str]) -> dict[str, Any]:
    """Summary of a run, which is trained unless it is finished; with `cpu_seconds` where this function trained it.

    Raises:
        SystemExit: the training failed.
    """
    cost, summary = folder / "cpu_seconds.json", folder / "summary.json"
    if not summary.exists():
        before = time.process_time()
        config = parse(recipe.RECIPE.name, recipe.Config, recipe.PRESETS, "", [f"--run-dir={folder}", *flags])
        if status := recipe.main(config):
            raise SystemExit(status)
        cost.write_text(json.dumps({"cpu_seconds": round(time.process_time() - before)}))
    return json.loads(summary.read_text()) | (json.loads(cost.read_text()) if cost.exists() else {})


def lines_of(folder: pathlib.Path) -> dict[int, dict[str, float]]:
    """Numbers of a run by step, those of training and of evaluators together."""
    lines: dict[int, dict[str, float]] = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        lines[line["step"]] = lines.get(line["step"], {}) | line
    return lines
