"""Matrices of int8 and fp8 by qwix: `python -m bench.formats.quantised_weights`, where qwix is installed.

Prints, and writes to bench/results/cpu/quantised_weights.json: how much smaller a 512 x 512 float32 matrix becomes, and
the root mean square difference of the products of 64 normal vectors with it, relative to that of the products; and what
`qwix.quantize_model` says of an Equinox layer.
"""

import importlib.metadata
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.nn import Projection

SIDE, VECTORS = 512, 64
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


def main() -> None:
    """Both types; prints and keeps the result."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "qwix")}
    rows = {str(jnp.dtype(kind)): measured(kind) for kind in (jnp.int8, jnp.float8_e4m3fn)}
    found = {"versions": versions, "rows": rows, "an Equinox layer": refusal()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
