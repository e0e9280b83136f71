"""Lowering of the Hopper kernels of attention to CUDA for every width, mask, dtype and option, without a GPU.

    python -m bench.gpu.lowering --head-dim 64 --out bench/results/cuda     one or two minutes a head_dim and dtype
    python -m bench.gpu.lowering --assemble --out bench/results/cuda        machine code too, six times as long

It needs jax 0.11 or newer; `bench.gpu.assembler` makes the machine code. Rows of other head_dims and dtypes stay in the
file.
"""

import argparse
import itertools
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.gpu.assembler import Assembler, lowered
from bench.ops.attention_shapes import MASKS, Attention
from kernels.attention import backends, checks, mosaic_gpu
from kernels.attention.problem import Extras, Setting

# The head_dim of queries and keys, and that of the values.
WIDTHS = {64: 64, 96: 96, 128: 128, 192: 128, 256: 256}
DTYPES = ("bfloat16", "float16")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"kv_heads": 2},
    "bias": {"bias": (False, True, True, True)},
    "soft cap": {"soft_cap": 2.0},
    "dropout": {"dropout_rate": 0.1},
    "all": {"kv_heads": 2, "bias": (False, True, True, True), "soft_cap": 2.0, "dropout_rate": 0.1},
}


def passes(head_dim: int, mask: str | None, dtype: str, option: str) -> Iterator[tuple[str, str | None, list[bytes]]]:
    """The passes of a call, each with the reason why it does not lower, or None, and its kernels."""
    rest = {"kv_heads": 4} | OPTIONS[option]
    case = Attention(
        2,
        300,
        420,
        4,
        head_dim=head_dim,
        v_head_dim=WIDTHS.get(head_dim, head_dim),
        mask=MASKS[mask] if mask else None,
        **rest,
    )
    shape = lambda heads, seq, dim: jax.ShapeDtypeStruct((case.batch, seq, heads, dim), jnp.dtype(dtype))
    q, k = shape(case.heads, case.q_seq, head_dim), shape(case.kv_heads, case.kv_seq, head_dim)
    extras = Extras(
        bias=jax.ShapeDtypeStruct((1, case.heads, case.q_seq, case.kv_seq), q.dtype) if case.bias else None,
        mask=bound(case) if mask else None,
        seeds=jax.ShapeDtypeStruct((case.batch, case.heads, 2), jnp.int32) if case.dropout_rate else None,
    )
    setting = Setting(head_dim**-0.5, case.soft_cap, case.dropout_rate)
    v = shape(case.kv_heads, case.kv_seq, case.v_head_dim)
    if reason := mosaic_gpu.supports(q, k, v, extras, setting):
        yield "both", reason, []
        return
    for direction in ("forward", "backward"):
        with lowered() as kernels:
            reason = backends.build_failure(mosaic_gpu, direction, q, k, v, extras, setting)
        yield direction, reason, kernels


def bound(case: Attention) -> Any:
    """A case's mask as the kernels receive it."""
    assert case.mask is not None
    return checks.bound_mask(
        case.mask(np.random.default_rng(0), case), (case.batch,), case.heads, case.q_seq, case.kv_seq
    )


def grid(head_dim: int, dtype: str, assembler: Assembler | None) -> dict[str, Any]:
    """Every mask and option: what does not lower, and with an assembler what its kernels spill."""
    start, calls = time.monotonic(), list(itertools.product((None, *MASKS), OPTIONS))
    row: dict[str, Any] = {
        "jax": jax.__version__,
        "masks": ["none", *MASKS],
        "options": list(OPTIONS),
        "calls": len(calls),
    }
    row |= {"failures": []} | (
        {"ptxas": assembler.version, "kernels": 0, "spilled bytes": {}, "warnings": []} if assembler else {}
    )
    for mask, option in calls:
        for direction, reason, kernels in passes(head_dim, mask, dtype, option):
            row["failures"] += [[mask, option, direction, reason]] if reason else []
            for kernel in kernels if assembler else ():
                try:
                    found = assembler.assemble(kernel)
                except RuntimeError as error:
                    row["failures"].append([mask, option, direction, str(error)])
                    continue
                row["kernels"] += 1
                name = found.name.removeprefix("eqxgen_attention_")
                row["warnings"] += [[mask, option, name, text] for text in found.warnings]
                if found.spilled:
                    spilled, case = row["spilled bytes"].setdefault(name, {}), f"{mask or 'none'}, {option}"
                    spilled[case] = max(found.spilled, spilled.get(case, 0))
    return row | {"seconds": round(time.monotonic() - start)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--head-dim", type=int, nargs="+", choices=list(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--assemble", action="store_true", help="in machine code too")
    parser.add_argument("--out", type=pathlib.Path, help="folder of lowering.json")
    options = parser.parse_args(arguments)
    path = options.out / "lowering.json" if options.out else None
    result = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    assembler = Assembler() if options.assemble else None
    for head_dim, dtype in itertools.product(options.head_dim, options.dtype):
        row = grid(head_dim, dtype, assembler)
        result[f"{head_dim}/{WIDTHS[head_dim]} {dtype}"] = row
        print(head_dim, dtype, json.dumps(row), flush=True)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(row["failures"] for row in result.values()))


if __name__ == "__main__":
    raise SystemExit(main())
