"""Norms on the CPU: ours against the plain `jnp` formula and against PyTorch, in one process, interleaved.

    python -m bench.bench_norm [--rounds 30] [--out bench/results/cpu]

Each round runs every contender once, in an order that turns from round to round; the ratios are medians over the rounds of that round's
ratio, so a machine that slows down for a while slows both sides. Every contender has two threads.
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

from bench.norm_shapes import MEASURED, Case


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
    """Forward alone, and forward with backward, in PyTorch's native kernels and its own layout; `None` where it has no such call."""
    import torch

    torch.set_num_threads(2)
    options = dict(case.options)
    if case.residual or case.modulation or case.op == "rms_norm":
        return None
    move = (lambda a: a.movedim(-1, 1).contiguous()) if case.op == "group_norm" else (lambda a: a)
    tensors = {k: move(torch.tensor(np.asarray(v))) if k == "x" else torch.tensor(np.asarray(v)) for k, v in arguments.items()}
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


def contenders(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Functions without arguments, by name: the forward passes, and the forward passes with the backward."""
    arguments, cotangent = case.arguments(), case.cotangent()
    functions = {"ours": case.call, "plain": functools.partial(plain, case)}
    if case.residual or case.modulation:
        functions["unfused"] = functools.partial(unfused, case)
    forward, backward = {}, {}
    for name, function in functions.items():
        one, two = jax.jit(function), jax.jit(functools.partial(both, function))
        forward[name] = lambda one=one: jax.block_until_ready(one(arguments))
        backward[name] = lambda two=two: jax.block_until_ready(two(arguments, cotangent))
    if torch := in_torch(case, arguments, cotangent):
        forward["torch"], backward["torch"] = torch
    return forward, backward


def race(runs: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each run in each round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(rounds + 3):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            runs[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: t[3:] for name, t in times.items()}


def least_bytes(case: Case) -> int:
    """Bytes of the arrays of x's shape that one forward and one backward pass must read or write."""
    return (8 if case.residual else 5) * 4 * int(np.prod(case.shape))


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Times, ratios to ours and the compiled program's bytes."""
    result: dict[str, Any] = {"case": str(case)}
    for phase, runs in zip(("forward", "forward and backward"), contenders(case)):
        times = race(runs, rounds)
        ratios = {n: statistics.median(t / o for t, o in zip(times[n], times["ours"])) for n in times if n != "ours"}
        result[phase] = {
            "median ms": {n: round(statistics.median(t), 3) for n, t in times.items()},
            "times ours": {n: round(r, 3) for n, r in ratios.items()},
        }
    compiled = jax.jit(functools.partial(both, case.call)).lower(case.arguments(), case.cotangent()).compile()
    result["bytes over least"] = round(compiled.cost_analysis()["bytes accessed"] / least_bytes(case), 2)
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The ratios in Markdown."""
    names = ("plain", "torch", "unfused")
    lines = ["| case | phase | ours ms | " + " | ".join(f"{n} / ours" for n in names) + " |", "|---|---|---|---|---|---|"]
    for r in results:
        for phase in ("forward", "forward and backward"):
            row = r[phase]
            cells = [f"{row['times ours'][n]:.2f}" if n in row["times ours"] else "" for n in names]
            lines.append(f"| {r['case']} | {phase} | {row['median ms']['ours']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    results = [measure(case, options.rounds) for case in MEASURED if options.only in str(case)]
    print(table(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        head = {"jax": jax.__version__, "cores": os.cpu_count(), "rounds": options.rounds, "dtype": "float32"}
        head["load average, 1 minute"] = round(os.getloadavg()[0], 1)
        (options.out / "norm.json").write_text(json.dumps({**head, "results": results}, indent=1) + "\n")
        (options.out / "norm.md").write_text(table(results))


if __name__ == "__main__":
    main()
