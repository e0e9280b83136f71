"""The rows of `bench.gpu`, in a process that may stop: each row is saved at once, and the next process goes on from it.

`bench.gpu` starts it. A contender that stopped a process is left out of the next one.
"""

import argparse
import datetime
import functools
import importlib.util
import pathlib
import platform
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bench.gpu import correct as gpu_correct
from bench.gpu.attention import Task, grid, special
from bench.gpu.book import SHARES, Book
from bench.gpu.steps import steps
from bench.machine import PACKAGES, versions
from bench.ops.attention import draw
from bench.ops.norm import makers, share_of_copy
from bench.ops.norm_shapes import LAYER, ON_CUDA, Case
from bench.race import PHASES, Clock, Turn, compare, jax_side, medians, race
from kernels.attention.backends import ON_CUDA as ATTENTION_KERNELS
from kernels.norm.primitives import KERNELS as NORM_KERNELS


def machine(tiny: bool) -> Iterator[Task]:
    """The device's own copy, read and written bytes counted, and its rate of bfloat16 products."""
    side, size, seconds = (64, 1 << 10, 0.05) if tiny else (8192, 1 << 28, 1.0)

    def alone(function: Callable, turn: Turn, *arrays: jax.Array) -> float:
        return medians(race({"alone": jax_side(function, *arrays)}, seconds, turn))["alone"]

    def copy(turn: Turn) -> dict[str, Any]:
        big = draw((size,), jnp.bfloat16, 2)
        return {"GB/s": 2 * big.nbytes / alone(jnp.copy, turn, big) / 1e6}

    def product(turn: Turn) -> dict[str, Any]:
        a, b = draw((side, side), jnp.bfloat16, 0), draw((side, side), jnp.bfloat16, 1)
        return {"TFLOP/s": 2 * side**3 / alone(jnp.matmul, turn, a, b) / 1e9}

    yield "copy", copy
    yield f"product of {side}", product


def norms(tiny: bool) -> Iterator[Task]:
    """The norms against XLA and a copy."""

    def row(case: Case, turn: Turn) -> dict[str, Any]:
        found: dict[str, Any] = {"left out": {}}
        for phase in PHASES:
            one = compare(makers(case, "bfloat16", phase, gpu=True), turn, 0.05 if tiny else 0.5)
            found["left out"] |= one.pop("left out")
            ratio = one["times ours"].pop("copy", None)
            found[phase] = one | (share_of_copy(case, phase, ratio, one["ms"].pop("copy")) if ratio else {})
        return found

    for case in (Case(LAYER, (8, 16), bias=True),) if tiny else ON_CUDA:
        yield str(case), functools.partial(row, case)


SECTIONS: dict[str, Callable[[bool], Iterator[Task]]] = {
    "right: attention": gpu_correct.attention,
    "right: norms": gpu_correct.norms,
    "machine": machine,
    "attention": grid,
    "steps": steps,
    "special": special,
    "norms": norms,
}


def about() -> dict[str, Any]:
    """Device, date and versions of the measurements."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": versions((*PACKAGES, "nvidia-cuda-nvcc")),
        "driver": _told(
            "nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit,memory.total", "--format=csv,noheader"
        ),
        "ptxas": {
            "on the path": _told("ptxas", "--version"),
            **{name: _told(path, "--version") for name, path in _ptxas().items()},
        },
    }


def _ptxas() -> dict[str, str]:
    """The assemblers that come inside wheels."""
    found = {}
    for package, inside in (("triton", "backends/nvidia/bin/ptxas"), ("nvidia", "cu13/bin/ptxas")):
        spec = importlib.util.find_spec(package)
        for where in (spec and spec.submodule_search_locations) or ():
            if (path := pathlib.Path(where) / inside).exists():
                found[package] = str(path)
    return found


def _told(*command: str) -> str:
    """The last line that a command prints."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except FileNotFoundError:
        return "not found"
    return text.splitlines()[-1] if text else "no answer"


def refuse(without: dict[str, str]) -> None:
    """Make the ops refuse the kernels that stopped a process."""
    for kernels in (ATTENTION_KERNELS, NORM_KERNELS):
        for name in set(kernels) & set(without):
            kernels[name].supports = lambda *_, reason=without[name]: reason


def run(book: Book, names: list[str], minutes: float, tiny: bool) -> None:
    """Measure the rows of these sections that are not in the book."""
    book.result["about"] = book.result["about"] or about()
    without = book.without()
    refuse(without)
    whole, shares = Clock(60 * minutes), sum(SHARES[name] for name in names)
    for name in names:
        # The remaining time is divided among the remaining sections.
        clock, slowest = Clock(max(whole.left(), 0.0) * SHARES[name] / shares), 0.0
        shares -= SHARES[name]
        for case, task in SECTIONS[name](tiny):
            if book.has(name, case):
                continue
            before = clock.left()
            if before < 1.2 * slowest or before <= 0:
                book.put(name, case, {"left out": {"the row": "the time budget"}})
                continue
            start = functools.partial(book.start, name, case)
            start("")
            row = task(Turn(clock, start, without))
            book.put(name, case, row | _memory())
            slowest = max(slowest, before - clock.left())


def _memory() -> dict[str, Any]:
    stats = jax.devices()[0].memory_stats()
    return {"peak GiB of the process": stats["peak_bytes_in_use"] / 2**30} if stats else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if jax.default_backend() != "gpu" and not options.tiny:
        parser.error(f"no GPU: jax runs on {jax.default_backend()}; --tiny checks the machinery without one")
    run(Book(options.out), options.only, options.minutes, options.tiny)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
