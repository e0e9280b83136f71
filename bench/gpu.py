"""Every GPU kernel in one command: is it right, and how fast beside its rivals in the same process.

    python -m bench.gpu                       under 8 minutes; writes bench/results/<device>/gpu.json and gpu.md
    python -m bench.gpu --quick               correctness alone, about a minute
    python -m bench.gpu --tiny --out /tmp/x   the machinery, in sizes for a CPU

Random data; contenders take turns in one process; the device's copy bandwidth and matrix rate are measured in the same run. Each section
has a share of `--minutes`, what it leaves goes to the next, and a row that would not fit is listed as left out. Rows are written as they come.
"""

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp

from bench.bench_norm import measure
from bench.gpu_attention import correctness, draw, grid, special
from bench.gpu_race import Clock, jax_side, race
from bench.gpu_steps import steps
from bench.norm_shapes import LAYER, ON_CUDA, Case

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "jax-triton", "triton", "torch", "tokamax", "nvidia-cudnn-cu13", "nvidia-cuda-nvcc")


def machine(clock: Clock, tiny: bool) -> Iterator[dict[str, Any]]:
    """The device's own copy, read and written bytes counted, and its rate of bfloat16 products."""
    side = 64 if tiny else 8192
    a, b = draw((side, side), jnp.bfloat16, 0), draw((side, side), jnp.bfloat16, 1)
    big = draw((1 << 10 if tiny else 1 << 28,), jnp.bfloat16, 2)
    seconds = 0.05 if tiny else 2.0
    times = race({"copy": jax_side(jnp.copy, big), "product": jax_side(jnp.matmul, a, b)}, seconds)
    yield {"case": "copy", "GB/s": 2 * big.nbytes / times["copy"] / 1e6}
    yield {"case": f"product of {side}", "TFLOP/s": 2 * side**3 / times["product"] / 1e9}


def norms(clock: Clock, tiny: bool) -> Iterator[dict[str, Any]]:
    """The norms beside XLA and beside the copy, as `bench.bench_norm` measures them."""
    for case in (Case(LAYER, (8, 16), bias=True),) if tiny else ON_CUDA:
        if clock.left() < 0:
            yield {"case": str(case), "left out": "the time budget"}
            continue
        yield measure(case, "cuda", 2 if tiny else 10)


# Each section with its share of the time.
SECTIONS: dict[str, tuple[Callable[[Clock, bool], Iterator[dict[str, Any]]], float]] = {
    "correctness": (correctness, 0.17),
    "machine": (machine, 0.03),
    "attention": (grid, 0.42),
    "special": (special, 0.12),
    "norms": (norms, 0.12),
    "steps": (steps, 0.14),
}


def about() -> dict[str, Any]:
    """What the numbers belong to."""
    device = jax.devices()[0]
    found = {name: version(name) for name in PACKAGES if importlib.util.find_spec(name.replace("-", "_")) or _is_wheel(name)}
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": found,
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv,noheader"),
        "ptxas": _first_line("ptxas", "--version", last=True),
    }


def _is_wheel(name: str) -> bool:
    try:
        return bool(version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def _first_line(*command: str, last: bool = False) -> str:
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except FileNotFoundError:
        return "not found"
    return text.splitlines()[-1 if last else 0] if text else "no answer"


def run(names: list[str], minutes: float, tiny: bool, out: pathlib.Path) -> dict[str, Any]:
    """All rows of the sections, written to `out` after each."""
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"about": about(), "sections": {}}
    whole, shares = Clock(60 * minutes), sum(SECTIONS[name][1] for name in names)
    for name in names:
        section, share = SECTIONS[name]
        rows = result["sections"][name] = []
        # What is left is divided among the sections to come.
        clock = Clock(max(whole.left(), 0.0) * share / shares)
        shares -= share
        for row in section(clock, tiny):
            rows.append(_rounded(row))
            print(name, json.dumps(rows[-1]), flush=True)
            (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if not rows:
            rows.append({"left out": "the time budget"})
    (out / "gpu.md").write_text(table(result), encoding="utf-8")
    return result


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return float(f"{x:.4g}") if isinstance(x, float) else x


def table(result: dict[str, Any]) -> str:
    """The rows in Markdown."""
    lines = [f"# {result['about']['device']}, {result['about']['date']}", ""]
    lines += ["`times ours` above 1: ours is faster.", ""]
    for name, rows in result["sections"].items():
        lines += [f"## {name}", ""]
        for row in rows:
            told = {k: v for k, v in row.items() if k not in ("case", "ms") and v and not (k == "left out" and isinstance(v, dict))}
            flat = ", ".join(f"{k}: {_flat(v)}" for k, v in told.items())
            lines.append(f"- {row.get('case', name)}: {flat}")
        lines.append("")
    return "\n".join(lines)


def _flat(x: Any) -> str:
    return "; ".join(f"{k} {_flat(v)}" for k, v in x.items()) if isinstance(x, dict) else str(x)


def folder(device: str) -> pathlib.Path:
    """bench/results/h200 for an NVIDIA H200."""
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", device.lower().replace("nvidia", "")).strip("-")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.5, help="the whole run's time budget")
    parser.add_argument("--quick", action="store_true", help="correctness alone")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU: the machinery alone")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--out", type=pathlib.Path, help="where the results go; bench/results/<device> by default")
    options = parser.parse_args(arguments)
    # PyTorch needs memory of the same device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if jax.default_backend() != "gpu" and not options.tiny:
        parser.error(f"no GPU: jax runs on {jax.default_backend()}; --tiny checks the machinery without one")
    names = ["correctness"] if options.quick else options.only
    result = run(names, options.minutes, options.tiny, options.out or folder(jax.devices()[0].device_kind))
    print(table(result))
    wrong = [row for row in result["sections"].get("correctness", []) if not all(v for k, v in row.items() if k.endswith(" ok"))]
    for row in wrong:
        print("wrong:", row)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
