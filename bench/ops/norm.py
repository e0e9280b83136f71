"""Norms against the plain `jnp` formula, on the CPU also against PyTorch, on a GPU also against our own form in XLA's
operations.

    python -m bench.ops.norm [--rounds 30] [--out bench/results/cpu]
    python -m bench.ops.norm --out bench/results/h200                 on a GPU: bfloat16, and the copy's bandwidth

All contenders run in one process. Each round runs every one, in an order that turns from round to round; the ratios are
medians over the rounds of that round's ratio, so a machine that slows down for a while slows both sides. On the CPU
every contender has two threads. `--suite cuda` runs a GPU's cases anywhere.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.ops.norm_shapes import MEASURED, ON_CUDA, Case

PHASES = ("forward", "backward", "forward and backward")
# Of the cases, their dtype, the phases, and the calls that are queued before the clock is read: a GPU runs behind
# Python.
SUITES = {"cpu": (MEASURED, "float32", (PHASES[0], PHASES[2]), 1), "cuda": (ON_CUDA, "bfloat16", PHASES, 20)}


def plain(case: Case, arguments: dict[str, Any]) -> Any:
    """The textbook formula."""
    x = arguments["x"] + arguments["residual"] if case.residual else arguments["x"]
    options = dict(case.options)
    grouped = x.reshape(*x.shape[:-1], options.get("groups", 1), -1)
    axes = (*range(1, x.ndim - 1), x.ndim) if case.op == "group_norm" else (x.ndim,)
    if case.op != "rms_norm":
        grouped = grouped - jnp.mean(grouped, axes, keepdims=True)
    y = (grouped * jax.lax.rsqrt(jnp.mean(grouped**2, axes, keepdims=True) + 1e-5)).reshape(x.shape)
    y = y * arguments["scale"] if case.scale else y
    y = y + arguments["bias"] if case.bias else y
    if case.modulation:
        shift, scale = arguments["modulation"]
        y = y * (1 + scale) + shift
    y = (jax.nn.silu(y) if "activation" in options else y).astype(x.dtype)
    return (y, x) if case.residual else y


def unfused(case: Case, arguments: dict[str, Any]) -> Any:
    """Our norm alone, with its residual or its modulation beside it."""
    rest = {k: v for k, v in arguments.items() if k not in ("residual", "modulation")}
    x = arguments["x"] + arguments["residual"] if case.residual else arguments["x"]
    y = Case(case.op, case.shape, case.scale, case.bias, options=case.options).call({**rest, "x": x})
    if case.modulation:
        shift, scale = arguments["modulation"]
        y = y * (1 + scale) + shift
    return (y, x) if case.residual else y


def both(function, arguments, cotangent):
    y, pull = jax.vjp(function, arguments)
    return y, pull(cotangent)[0]


def in_torch(case: Case, arguments: dict[str, Any], cotangent: Any):
    """Forward alone, and forward with backward, in PyTorch's native kernels and its own layout; `None` where it has no
    such call.
    """
    import torch

    torch.set_num_threads(2)
    options = dict(case.options)
    if case.residual or case.modulation or case.op == "rms_norm":
        return None
    move = (lambda a: a.movedim(-1, 1).contiguous()) if case.op == "group_norm" else (lambda a: a)
    tensors = {
        k: move(torch.tensor(np.asarray(v))) if k == "x" else torch.tensor(np.asarray(v)) for k, v in arguments.items()
    }
    leaves = [t.requires_grad_() for t in tensors.values()]
    dy = move(torch.tensor(np.asarray(cotangent)))

    def norm():
        if case.op == "layer_norm":
            return torch.nn.functional.layer_norm(tensors["x"], case.shape[-1:], tensors["scale"], tensors["bias"])
        y = torch.nn.functional.group_norm(tensors["x"], options["groups"], tensors["scale"], tensors["bias"])
        return torch.nn.functional.silu(y) if "activation" in options else y

    def forward():
        with torch.no_grad():
            return norm()

    return forward, lambda: torch.autograd.grad(norm(), leaves, dy)


def contenders(case: Case, suite: str) -> dict[str, dict[str, Any]]:
    """For each phase, functions without arguments by name, which return when the work is queued."""
    _, dtype, phases, _ = SUITES[suite]
    arguments, cotangent = case.arguments(dtype), case.cotangent(dtype)
    functions = {"ours": case.call, "plain": functools.partial(plain, case)}
    if suite == "cuda":
        functions["xla"] = functools.partial(case.call, implementation="xla")
    if case.residual or case.modulation:
        functions["unfused"] = functools.partial(unfused, case)
    runs: dict[str, dict[str, Any]] = {phase: {} for phase in phases}
    for name, function in functions.items():
        forward, whole = jax.jit(function), jax.jit(functools.partial(both, function))
        runs["forward"][name] = functools.partial(forward, arguments)
        runs["forward and backward"][name] = functools.partial(whole, arguments, cotangent)
        if "backward" in phases:
            pull = jax.jit(lambda a, function=function: jax.vjp(function, a)[1])(arguments)
            runs["backward"][name] = functools.partial(jax.jit(lambda pull, dy: pull(dy)[0]), pull, cotangent)
    if suite == "cuda":
        for phase in phases:
            runs[phase]["copy"] = functools.partial(jax.jit(jnp.copy), arguments["x"])
    elif torch := in_torch(case, arguments, cotangent):
        runs["forward"]["torch"], runs["forward and backward"]["torch"] = torch
    return runs


def race(runs: dict[str, Any], rounds: int, calls: int) -> dict[str, list[float]]:
    """Milliseconds of a call of each run in each round, from `calls` that are queued together."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(rounds + 3):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            results = [runs[name]() for _ in range(calls)]
            jax.block_until_ready(results[-1] if name != "torch" else None)
            times[name].append(1e3 * (time.perf_counter() - start) / calls)
    return {name: t[3:] for name, t in times.items()}


def arrays_moved(case: Case, phase: str) -> int:
    """How many arrays of x's shape a phase must read or write."""
    # x, y and the residual and the sum; h, dy, dx and the cotangent of the sum.
    forward, backward = (4, 4) if case.residual else (2, 3)
    return {"forward": forward, "backward": backward, "forward and backward": forward + backward}[phase]


def least_bytes(case: Case, itemsize: int = 4) -> int:
    """Bytes of the arrays of x's shape that one forward and one backward pass must read or write."""
    return arrays_moved(case, "forward and backward") * itemsize * int(np.prod(case.shape))


def measure(case: Case, suite: str, rounds: int) -> dict[str, Any]:
    """Times, ratios to ours, the share of the copy's bandwidth that ours reaches, and the compiled program's bytes."""
    _, dtype, _, calls = SUITES[suite]
    result: dict[str, Any] = {"case": str(case)}
    for phase, runs in contenders(case, suite).items():
        times = race(runs, rounds, calls)
        copy = times.pop("copy", None)
        ratios = {n: statistics.median(t / o for t, o in zip(times[n], times["ours"])) for n in times if n != "ours"}
        result[phase] = {
            "median ms": {n: round(statistics.median(t), 4) for n, t in times.items()},
            "times ours": {n: round(r, 3) for n, r in ratios.items()},
        }
        if copy:
            share = statistics.median(c / 2 * arrays_moved(case, phase) / o for c, o in zip(copy, times["ours"]))
            size = 2 * int(np.prod(case.shape)) * jnp.dtype(dtype).itemsize
            result[phase] |= {"of copy": round(share, 3), "copy GB/s": round(size / statistics.median(copy) / 1e6)}
    compiled = jax.jit(functools.partial(both, case.call)).lower(case.arguments(dtype), case.cotangent(dtype)).compile()
    least = least_bytes(case, jnp.dtype(dtype).itemsize)
    result["bytes over least"] = round(compiled.cost_analysis()["bytes accessed"] / least, 2)
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The ratios in Markdown, with a column for each that was measured."""
    phases = [(r["case"], phase, r[phase]) for r in results for phase in PHASES if phase in r]
    names = [n for n in ("plain", "xla", "torch", "unfused") if any(n in row["times ours"] for _, _, row in phases)]
    copied = any("of copy" in row for _, _, row in phases)
    head = ["case", "phase", "ours ms", *(f"{n} / ours" for n in names), *(["share of copy"] if copied else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case, phase, row in phases:
        cells = [case, phase, f"{row['median ms']['ours']:.{3 if copied else 2}f}"]
        cells += [f"{row['times ours'][n]:.2f}" if n in row["times ours"] else "" for n in names]
        cells += [f"{row['of copy']:.2f}"] if copied else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--suite", choices=tuple(SUITES), default="cuda" if jax.default_backend() == "gpu" else "cpu")
    options = parser.parse_args()
    results = []
    for case in SUITES[options.suite][0]:
        if options.only in str(case):
            results.append(measure(case, options.suite, options.rounds))
            print(table(results[-1:]), flush=True)
    print(table(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        head = {
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "rounds": options.rounds,
        }
        head["dtype"] = SUITES[options.suite][1]
        head["load average, 1 minute"] = round(os.getloadavg()[0], 1)
        (options.out / "norm.json").write_text(json.dumps({**head, "results": results}, indent=1) + "\n")
        (options.out / "norm.md").write_text(table(results))


if __name__ == "__main__":
    main()
