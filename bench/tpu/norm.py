"""Norms on TPU without a TPU: bytes moved by the programs compiled for v5e and v6e, over the necessary bytes.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m bench.tpu.norm [--out bench/results/cpu]

Forward and backward in bfloat16, ours, the same in XLA's operations, and the plain `jnp` formula.
"""

import argparse
import functools
import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.ops.norm import least_bytes, plain
from bench.ops.norm_shapes import GROUP, LAYER, RMS, Case
from bench.race import both

SILU = (("groups", 32), ("activation", "silu"))
CASES = (
    Case(LAYER, (16, 1024, 4096), bias=True),
    Case(LAYER, (16, 1024, 4096), scale=False, modulation=(16, 1, 4096)),
    Case(RMS, (16, 1024, 4096), residual=True),
    Case(LAYER, (64, 1024, 768), bias=True),
    Case(LAYER, (8, 1024, 1152), bias=True),
    Case(GROUP, (256, 64, 320), bias=True, options=SILU),
    Case(GROUP, (256, 16, 16, 512), bias=True, options=SILU),
    Case(GROUP, (64, 64, 64, 256), bias=True, options=SILU),
)
ITEMSIZE = {"bf16": 2, "f32": 4, "s32": 4, "u32": 4, "s8": 1, "u8": 1, "pred": 1}


def operands(case: Case, place: Any) -> tuple[Any, dict[str, Any]]:
    """The shapes of the cotangent and the arguments of a case."""

    def array(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    x, row = array(case.shape, jnp.bfloat16), array(case.shape[-1:], jnp.float32)
    given = {"scale": row} if case.scale else {}
    given |= {"bias": row} if case.bias else {}
    given |= {"residual": x} if case.residual else {}
    given |= {"modulation": (array(case.modulation, jnp.float32),) * 2} if case.modulation else {}
    return (x, x) if case.residual else x, {"x": x, **given}


def bytes_over_least(case: Case, function: Any, place: Any) -> tuple[float, float]:
    """Bytes of the compiled forward and backward pass, over those of reading and writing each array once.

    First by XLA's cost analysis, then of the main memory alone: XLA prefetches arrays into the on-chip memory, and its
    analysis counts the copy and the on-chip reads as well.
    """
    compiled = jax.jit(functools.partial(both, function)).lower(*operands(case, place)).compile()
    # With a residual it and x have the same gradient, which is written and copied.
    least = least_bytes(case) // 2 + 2 * 2 * case.residual * int(np.prod(case.shape))
    return round(compiled.cost_analysis()["bytes accessed"] / least, 2), round(
        main_memory_bytes(compiled.as_text()) / least, 2
    )


def main_memory_bytes(text: str) -> int:
    """Bytes that the operations of a compiled program's entry read from and write to the main memory, each operand
    once.
    """
    entry = text[text.index("\nENTRY") :]
    lines = re.findall(r"^  (?:ROOT )?%(\S+) = (.*?) ([a-z][a-z-]*)\((.*?)\)(?:,|$)", entry, re.MULTILINE)
    types = {name: kind for name, kind, _, _ in lines}
    total = 0
    for _, kind, operation, operands in lines:
        if operation in ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "copy-done"):
            continue
        # The result of copy-start is a tuple of the copy, the operand and a flag.
        written = kind.split("}, ")[0] + "}" if operation == "copy-start" else kind
        read = [types[name] for name in set(re.findall(r"%([\w.-]+)", operands))]
        total += sum(_bytes(k) for k in (written, *read))
    return total


def _bytes(kind: str) -> int:
    """Bytes of the arrays of a type in the main memory; a layout with S(1) is the on-chip memory's."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\](\{[^}]*\})?", kind)
    return sum(
        ITEMSIZE[t] * int(np.prod([int(n) for n in shape.split(",") if n]))
        for t, shape, layout in arrays
        if "S(" not in layout
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    rows = []
    for chip in ("v5e", "v6e"):
        devices = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip}:2x2").devices
        place = NamedSharding(Mesh(np.array(devices[:1]), ("one",)), PartitionSpec())
        for case in CASES:
            functions = {
                "ours": case.call,
                "xla": functools.partial(case.call, implementation="xla"),
                "plain": functools.partial(plain, case),
            }
            row: dict[str, Any] = {"chip": chip, "case": str(case)}
            for name, function in functions.items():
                row[name], row[f"{name}, main memory"] = bytes_over_least(case, function, place)
            rows.append(row)
            print(rows[-1], flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "norm_tpu_bytes.json").write_text(
            json.dumps({"jax": jax.__version__, "bytes over least": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
