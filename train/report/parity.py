"""Comparison of a written folder with the library that published its architecture, where that is installed."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.pretrained import files
from eqxgen.pretrained.family import Family


def report(family: Family, load: Callable[[], Any], folder: Path) -> list[str]:
    """A line for the arrays that the library reads, and one for each output: its largest difference from ours.

    Args:
        family: of the model.
        load: gives ours, of the same weights.
        folder: that was written.
    """
    values = files.read_json(folder / files.CONFIG)
    library = "diffusers" if "_class_name" in values else "transformers"
    name = values.get("_class_name") or next(iter(values.get("architectures") or []), None)
    if name is None:
        return [f"parity: not compared: {family.name} has no class in a library"]
    try:
        kind = getattr(importlib.import_module(library), name)
        original, info = kind.from_pretrained(folder, output_loading_info=True)
    except ModuleNotFoundError as error:
        return [f"parity: not compared, as there is no module {error.name}: pip install torch {library} to compare"]
    lines = [f"parity: {library}.{name} reads it{_loaded(info)}"]
    if family.outputs is None:
        return [*lines, f"parity: outputs of {family.name} are not compared here; the tests compare them"]
    for what, (ours, theirs) in family.outputs(load(), original.eval()).items():
        ours, theirs = (np.asarray(array, np.float64) for array in (ours, theirs))
        difference, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
        lines.append(f"parity: {what}: largest difference {difference:.2g}, of values up to {scale:.3g}")
    return lines


def _loaded(info: dict[str, Any]) -> str:
    left = {word: len(info.get(f"{word}_keys") or ()) for word in ("missing", "unexpected", "mismatched")}
    said = ", ".join(f"{count} {word}" for word, count in left.items() if count)
    return f", with {said}" if said else " whole"
