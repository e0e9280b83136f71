"""Attention on this CPU against `jax.nn` and PyTorch, paired and interleaved in one process.

    python -m bench.ops.attention 64 256 1024 4096     # lengths to measure
    python -m bench.ops.attention memory window accuracy

Each row is the median over rounds of the ratio of times within a round, so that a change of the machine's speed touches
both. Results are merged into bench/results/cpu/attention.json, and attention.md is made from it.
"""

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bench.ops.attention_shapes import CPU_ATTENTION
from kernels import dot_product_attention, masks

RESULTS = Path(__file__).parents[1] / "results" / "cpu"
HEADS, HEAD_DIM = 8, 64


def jax_side(attend, arrays, backward: bool):
    """A function without arguments that computes the output, and the gradients with `backward`."""

    def both(q, k, v, dout):
        out, transpose = jax.vjp(attend, q, k, v)
        return out, transpose(dout)

    f = jax.jit(both if backward else lambda q, k, v, dout: attend(q, k, v))
    return lambda: jax.block_until_ready(f(*arrays))


def torch_side(arrays, causal: bool, backward: bool, dtype: str):
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    q, k, v, dout = (torch.tensor(a).transpose(1, 2).contiguous().to(getattr(torch, dtype)) for a in arrays)
    attend = torch.nn.functional.scaled_dot_product_attention
    if not backward:
        return lambda: attend(q, k, v, is_causal=causal)
    inputs = [x.requires_grad_(True) for x in (q, k, v)]
    return lambda: torch.autograd.grad(attend(*inputs, is_causal=causal), inputs, dout)


def race(sides: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the order turns from round to round."""
    names = list(sides)
    for name in names:
        sides[name]()
    times = {name: [] for name in names}
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            start = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - start)
    return times


def speed(batch: int, seq: int, causal: bool, backward: bool) -> dict:
    draw = np.random.default_rng(0)
    raw = [draw.standard_normal((batch, seq, HEADS, HEAD_DIM)).astype(np.float32) for _ in range(4)]
    f32, bf16 = ([jnp.asarray(a, dtype) for a in raw] for dtype in (jnp.float32, jnp.bfloat16))
    ours = lambda q, k, v: dot_product_attention(q, k, v, is_causal=causal)
    theirs = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    sides = {
        "ours": jax_side(ours, f32, backward),
        "ours bfloat16": jax_side(ours, bf16, backward),
        "jax.nn": jax_side(theirs, f32, backward),
    }
    try:
        sides["torch"] = torch_side(raw, causal, backward, "float32")
        sides["torch bfloat16"] = torch_side(raw, causal, backward, "bfloat16")
    except ModuleNotFoundError:
        print("no torch: its column is left out")
    times = race(sides, 5 if seq >= 4096 else 15)
    row = {f"{name} ms": 1e3 * statistics.median(t) for name, t in times.items()}
    for other in sides:
        if other != "ours":
            row[f"{other} / ours"] = statistics.median(b / a for a, b in zip(times["ours"], times[other]))
    return row


def memory(seq: int) -> dict:
    """Bytes of a compiled causal forward and backward pass."""
    x = jax.ShapeDtypeStruct((1, seq, HEADS, HEAD_DIM), jnp.float32)

    def both(q, k, v, dout):
        out, transpose = jax.vjp(lambda *a: dot_product_attention(*a, is_causal=True), q, k, v)
        return out, transpose(dout)

    analysis = jax.jit(both).lower(x, x, x, x).compile().memory_analysis()
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    return {
        "temporary bytes": analysis.temp_size_in_bytes,
        "held bytes": held,
        "temporary / held": analysis.temp_size_in_bytes / held,
    }


def window(seq: int, size: int) -> dict:
    draw = np.random.default_rng(0)
    arrays = [jnp.asarray(draw.standard_normal((1, seq, HEADS, HEAD_DIM)), jnp.float32) for _ in range(4)]
    narrow = lambda q, k, v: dot_product_attention(q, k, v, mask=masks.Window(size, 0))
    row = {}
    for backward, name in ((False, "forward"), (True, "forward and backward")):
        sides = {
            "window": jax_side(narrow, arrays, backward),
            "full": jax_side(dot_product_attention, arrays, backward),
        }
        times = race(sides, 3)
        row[f"{name}: full / window"] = statistics.median(b / a for a, b in zip(times["window"], times["full"]))
    return row


def exact(q, k, v, dout, causal: bool):
    """The output and the gradients of q, k and v in float64."""
    q, k, v, dout = (np.swapaxes(np.asarray(x, np.float64), 1, 2) for x in (q, k, v, dout))
    scale = q.shape[-1] ** -0.5
    s = scale * q @ np.swapaxes(k, 2, 3)
    if causal:
        s = np.where(np.tri(*s.shape[2:], dtype=bool), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dout @ np.swapaxes(v, 2, 3)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    found = p @ v, ds @ k, np.swapaxes(ds, 2, 3) @ q, np.swapaxes(p, 2, 3) @ dout
    return [np.swapaxes(x, 1, 2) for x in found]


def accuracy(dtype: str, problems: int) -> dict:
    """Root mean square errors against float64, ours over `jax.nn`'s, over drawn shapes."""
    draw = np.random.default_rng(0)
    ratios = {name: [] for name in ("out", "dq", "dk", "dv")}
    for _ in range(problems):
        batch, seq, heads = draw.integers(1, 4), draw.integers(1, 700), draw.integers(1, 5)
        causal, shape = bool(draw.integers(2)), (batch, seq, heads, int(draw.choice([16, 64, 96, 128])))
        arrays = [jnp.asarray(draw.standard_normal(shape), dtype) for _ in range(4)]
        true = exact(*arrays, causal)

        @jax.jit
        def both(q, k, v, dout, causal=causal):
            found = []
            for attend in (dot_product_attention, jax.nn.dot_product_attention):
                out, transpose = jax.vjp(lambda *a, f=attend: f(*a, is_causal=causal), q, k, v)
                found.append((out, *transpose(dout)))
            return found

        for name, ours, theirs, want in zip(ratios, *both(*arrays), true):
            error = lambda x, want=want: np.sqrt(np.mean((np.asarray(x, np.float64) - want) ** 2))
            # One key alone has no gradient but by roundings.
            if error(theirs) > 1e-9:
                ratios[name].append(error(ours) / error(theirs))
    row = {
        f"{name} {what}": f(r)
        for name, r in ratios.items()
        for what, f in (("median", statistics.median), ("largest", max))
    }
    return row | {"problems": problems}


def record(name: str, row: dict) -> None:
    path = RESULTS / "attention.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = json.loads(path.read_text()) if path.exists() else {}
    table[name] = {key: float(f"{value:.4g}") for key, value in row.items()} | {"load": round(os.getloadavg()[0], 1)}
    table = {key: table[key] for key in sorted(table)}
    path.write_text(json.dumps(table, indent=1) + "\n")
    lines = [
        "# Attention on a CPU",
        "",
        f"float32, {HEADS} heads of {HEAD_DIM}, {os.cpu_count()} cores, jax {jax.__version__}, {platform.machine()}.",
        "",
    ]
    lines += [
        "`x / ours` is the median ratio of times: above 1, ours is faster. `load` is the machine's load average after "
        "the row.",
        "",
    ]
    for key, values in table.items():
        lines.append(f"- {key}: " + ", ".join(f"{k} {v:g}" for k, v in values.items()))
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(name, table[name], flush=True)


def main() -> None:
    wanted = sys.argv[1:] or ["16", "64", "128", "256", "1024", "4096", "memory", "window", "accuracy"]
    for batch, seq in CPU_ATTENTION:
        if str(seq) in wanted:
            for causal in (False, True):
                for backward in (False, True):
                    mask, passes = "causal" if causal else "full", "forward and backward" if backward else "forward"
                    name = f"B{batch} T{seq} {mask} {passes}"
                    record(name, speed(batch, seq, causal, backward))
    if "memory" in wanted:
        for seq in (16384, 32768):
            record(f"memory T{seq} causal forward and backward", memory(seq))
    if "window" in wanted:
        record("window 256 of T8192", window(8192, 256))
    if "accuracy" in wanted:
        for dtype in ("float32", "bfloat16"):
            record(f"accuracy {dtype}, error over that of jax.nn", accuracy(dtype, 40))


if __name__ == "__main__":
    main()
