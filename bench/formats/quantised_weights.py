"""Matrices of int8 and fp8 by qwix: `python -m bench.formats.quantised_weights`, where qwix is installed.

Prints, and writes to bench/results/cpu/quantised_weights.json: how much smaller a 512 x 512 float32 matrix becomes, and
the root mean square difference of the products of 64 normal vectors with it, relative to that of the products; and what
`qwix.quantize_model` says of an Equinox layer. `--run RUN ...` adds what evaluators find of runs whose matrices were
quantised, a scale for each output, and put back.
"""

import argparse
import importlib.metadata
import json
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from eqxgen.nn import Projection
from train import evaluate

SIDE, VECTORS = 512, 64
COSTS = ("evaluation_seconds",)
KINDS = (jnp.int8, jnp.float8_e4m3fn)
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "quantised_weights.json"


def measured(kind: Any) -> dict[str, float]:
    """Numbers of one type of entries."""
    import qwix

    weight, x = jr.normal(jr.key(0), (SIDE, SIDE)), jr.normal(jr.key(1), (VECTORS, SIDE))
    stored = qwix.quantize(weight, kind, channelwise_axes=(0,))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(stored))
    right, found = (np.asarray(x @ w.T, np.float64) for w in (weight, qwix.dequantize(stored)))
    rms = lambda x: float(np.sqrt(np.mean(x**2)))
    return {"times_smaller": round(weight.nbytes / size, 2), "difference": round(rms(found - right) / rms(right), 4)}


def refusal() -> str:
    """The error of an Equinox layer as a model of qwix."""
    import qwix

    rules = [qwix.QuantizationRule(weight_qtype=jnp.int8)]
    layer = Projection(SIDE, SIDE, key=jr.key(0))
    try:
        qwix.quantize_model(layer, qwix.PtqProvider(rules), jnp.zeros((1, SIDE)))  # pyright: ignore
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]:.80}"
    return "none"


def rounded(source: pathlib.Path, target: pathlib.Path, kind: Any) -> float:
    """Writes a file of weights whose matrices, also those of stacked blocks, went through a type; gives their share."""
    import qwix

    with safe_open(source, "np") as file:
        arrays, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    chosen = [name for name, x in arrays.items() if name.endswith(".weight") and x.ndim in (2, 3)]
    for name in chosen:
        weight = jnp.asarray(arrays[name])
        stored = qwix.quantize(weight, kind, channelwise_axes=tuple(range(weight.ndim - 1)))
        arrays[name] = np.asarray(qwix.dequantize(stored), np.float32)
    save_file(arrays, target, about)
    return sum(arrays[name].size for name in chosen) / sum(x.size for x in arrays.values())


def of_run(run: pathlib.Path) -> dict[str, Any]:
    """Numbers of a run's evaluators by type of its matrices."""
    found: dict[str, Any] = {}
    for kind in (None, *KINDS):
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place) / run.name
            shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints", "samples*", "tensorboard"))
            if kind is not None:
                found["share"] = round(rounded(run / "model.safetensors", folder / "model.safetensors", kind), 4)
            if status := evaluate.main(["--run", str(folder)]):
                raise SystemExit(status)
            numbers = json.loads((folder / "evaluation.json").read_text())
        name = "float32" if kind is None else str(jnp.dtype(kind))
        found[name] = {key: value for key, value in numbers.items() if isinstance(value, float) and key not in COSTS}
    return found


def main() -> None:
    """Both types; prints and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs="*", default=[], type=pathlib.Path, help="finished runs to evaluate")
    versions = {name: importlib.metadata.version(name) for name in ("jax", "qwix")}
    rows = {str(jnp.dtype(kind)): measured(kind) for kind in KINDS}
    runs = {run.name: of_run(run) for run in parser.parse_args().run}
    found = {"versions": versions, "rows": rows, "an Equinox layer": refusal(), "runs": runs}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
