"""Every model of the table of tests/models/model_rows.py as ONNX: `python -m bench.formats.onnx_models` (extra `onnx`).

Writes bench/results/cpu/onnx.json: of each model the largest difference of onnxruntime from JAX relative to the largest
entry of the result, the nodes of the graph, the largest entry, and the change of the result by another input, both of
JAX; or the reason of a refusal. `--only NAME` measures some and keeps the other rows; `python -m bench report` prints
no part of it, the table of docs/models.md is `--table`.
"""

import argparse
import importlib.metadata
import json
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from eqxgen.onnx_export import to_onnx
from tests.models.model_rows import ROWS
from tests.models.test_onnx import model_of

RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "onnx.json"
LIBRARIES = ("jax", "jax2onnx", "onnxruntime")


def measured(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Numbers of one model."""
    function = model_of(name)
    inputs = ROWS[name].inputs(0)
    try:
        found = to_onnx(function, *inputs, path=folder / "model.onnx")
    except ValueError as error:
        words = str(error)
        for before in ("convert the program: ", "cannot run the file: ", "ShapeInferenceError] ", "Error "):
            words = words.rpartition(before)[2]
        return {"refused": words}
    run = jax.jit(lambda *inputs: [np_float(x) for x in jax.tree.leaves(function(*inputs))])
    here, there = run(*inputs), run(*ROWS[name].inputs(1))
    largest = max(float(np.max(np.abs(x))) for x in here)
    change = max(float(np.max(np.abs(x - y))) for x, y in zip(here, there))
    nodes = sum(found.operators.values())
    return {"difference": found.error, "nodes": nodes, "largest": largest, "change": change}


def np_float(x: jax.Array) -> jax.Array:
    """The same numbers in float32."""
    return x.astype("float32")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as docs/models.md has them."""
    lines = ["| model | difference | nodes |", "|---|---|---|"]
    for name, row in rows.items():
        shown = (f"refused: {row['refused']}", "-") if "refused" in row else (f"{row['difference']:.1e}", row["nodes"])
        lines.append(f"| {name} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def main() -> None:
    """All models that are run by one call, or some; keeps each result at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--table", action="store_true", help="prints the stored rows as Markdown")
    asked = parser.parse_args()
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": {}}
    if asked.table:
        print(table(stored["rows"]))
        return
    stored["versions"] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    names = [name for name in ROWS if not ROWS[name].whole]
    if unknown := set(asked.only or []) - set(names):
        parser.error(f"--only must name rows of tests/models/model_rows.py: got {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only or names:
            stored["rows"][name] = measured(name, pathlib.Path(folder))
            print(name, stored["rows"][name], flush=True)
            stored["rows"] = {row: stored["rows"][row] for row in names if row in stored["rows"]}
            RESULT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
