"""Whole programs on one TPU, train steps and short calls: ours, and the same with `jax.nn`'s attention and plain norms.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m bench.tpu_schedule.steps --for v5e --out bench/results/tpu

Loss, gradients and AdamW of one chip's share of a batch, float32 parameters and bfloat16 inside. Blocks are a loop over
their depth, so that a few are compiled where the whole model does not fit one chip; the table has their number.
`jax.nn`'s attention has no dropout of its weights, so that the step without dropout alone is the same work for both.
The calls are both passes of attention in the layout of a projection, with all that XLA does around the kernels.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from bench.gpu.steps import FAMILIES, plain_ops, update
from bench.tpu.hlo import executions
from eqxgen import ops
from eqxgen.configs import DiTConfig
from train import gpt, maskgit

from .chips import CHIPS
from .dump import DumpError
from .measure import compiled, rows_of

IMAGENET = maskgit.PRESETS["imagenet256"].model
# Examples of one chip, further sizes of the model, its configuration, and blocks that are compiled of its depth.
STEPS = {
    "imagenet256": (32, (256, 1024, 1000), IMAGENET, 2),
    "imagenet256, no dropout": (32, (256, 1024, 1000), dataclasses.replace(IMAGENET, dropout=0.0), 2),
    "gpt2-xl": (8, (50257,), gpt.PRESETS["gpt2-xl"].model, 2),
    "DiT-XL/2": (16, (32, 32, 4, 1000), dataclasses.replace(DiTConfig.xlarge(), remat=True), 2),
}
# Tokens and head_dim of 8 examples with 16 heads.
CALLS = {
    f"attention, {tokens} tokens, head_dim {head_dim}": (tokens, head_dim)
    for tokens, head_dim in ((256, 72), (257, 48), (384, 64), (512, 64), (512, 128), (512, 256))
}
EXAMPLES, HEADS = 8, 16
COLUMNS = {
    "blocks": "blocks",
    "seconds": "compiler's estimate, ms",
    "GB": "bytes accessed, GB",
    "state": "GiB of state",
    "temporaries": "GiB of temporaries",
    "bundles": "bundles, M",
    "compute": "bundles, ms",
    "memory": "bytes, ms",
    "kernels": "share in our kernels",
    "attention": "of attention",
}


def step(name: str, by: str, chip: str) -> dict[str, Any]:
    """The compiler's numbers of one program: its own estimate, bytes, memory, bundles and the share of our kernels."""
    function, held, blocks = _call(*CALLS[name]) if name in CALLS else _step(*STEPS[name])
    donated = () if name in CALLS else tuple(range(len(held)))
    program, found = compiled(function, *held, topology=chip, donated=donated)
    text, memory = program.as_text(), program.memory_analysis()
    times = executions(text)
    rows = [(x, times.get(x.name, 1)) for x in rows_of(text, found, function, *held, topology=chip, every=True)]
    total = sum(x.total * n for x, n in rows)
    share = lambda word: round(sum(x.total * n for x, n in rows if x.pallas and word in x.name) / total, 3)
    cost = program.cost_analysis() or {}
    return {
        "chip": chip,
        "step": name,
        "by": by,
        "blocks": blocks,
        "seconds": round(1e3 * cost["optimal_seconds"], 2) if cost.get("optimal_seconds", 0) > 0 else None,
        "GB": round(cost.get("bytes accessed", 0.0) / 1e9, 3),
        "state": round(memory.argument_size_in_bytes / 2**30, 2),
        "temporaries": round(memory.temp_size_in_bytes / 2**30, 2),
        "bundles": round(total / 1e6, 3),
        "kernels": share("eqxgen"),
        "attention": share("eqxgen_attention"),
    }


def _step(batch: int, sizes: tuple[int, ...], config: Any, blocks: int) -> tuple[Any, tuple[Any, ...], str]:
    """The update, its arguments' shapes, and the blocks that are compiled."""
    cut = dataclasses.replace(config, depth=min(blocks, config.depth))
    make = functools.partial(FAMILIES[type(config)][1], batch, sizes, cut)
    held = jax.eval_shape(lambda: update(make)[1])
    return lambda *held: update(make)[0](*held), held, f"{cut.depth} of {config.depth}"


def _call(tokens: int, head_dim: int) -> tuple[Any, tuple[Any, ...], str]:
    def forward(q, k, v):
        q, k, v = (x.reshape(*x.shape[:2], HEADS, head_dim) for x in (q, k, v))
        return ops.dot_product_attention(q, k, v).reshape(EXAMPLES, tokens, -1)

    def both(dout, q, k, v):
        out, pull = jax.vjp(forward, q, k, v)
        return out, pull(dout)

    return both, (jax.ShapeDtypeStruct((EXAMPLES, tokens, HEADS * head_dim), jnp.bfloat16),) * 4, ""


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of all steps."""
    rows = [x | _times(x) for x in rows]
    keys = ("chip", "step", "by", *COLUMNS)
    head = ("chip", "step", "by", *COLUMNS.values())
    cell = lambda x: "" if x is None else f"{x:.1%}" if isinstance(x, float) and x < 1 else str(x)
    shown = lambda key, x: cell(x) if key in ("kernels", "attention") else "" if x is None else str(x)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(shown(k, x[k]) for k in keys) + " |" for x in rows]
    return (
        "# Whole programs, compiled for one TPU\n\n"
        "By `python -m bench.tpu_schedule.steps`; compiled and not run. Bundles count every operation of the program by"
        " the turns of its loops, at the core's clock, with no stall counted; bytes are XLA's count of what its"
        " operations read and write, at the full bandwidth of main memory.\n\n" + "\n".join(lines) + "\n"
    )


def _times(row: dict[str, Any]) -> dict[str, float]:
    chip = CHIPS[row["chip"]]
    times = row["bundles"] * 1e6 / chip.clock, row["GB"] * 1e9 / chip.bandwidth
    return {name: round(1e3 * seconds, 3) for name, seconds in zip(("compute", "memory"), times)}


def main() -> None:
    """Compile the programs that the flags ask for; write after each."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tpu_schedule.steps", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--for", dest="chips", nargs="+", choices=tuple(CHIPS), default=["v5e"], help="generations")
    parser.add_argument("--steps", nargs="+", choices=(*STEPS, *CALLS), default=[*STEPS, *CALLS], help="programs")
    parser.add_argument("--out", type=pathlib.Path, help="folder of steps.json and steps.md, whose other rows stay")
    options = parser.parse_args()
    path = options.out / "steps.json" if options.out else None
    rows = json.loads(path.read_text(encoding="utf-8"))["steps"] if path and path.exists() else []
    for chip in options.chips:
        for name in options.steps:
            for by in ("ours", "jax.nn"):
                if by == "ours":
                    row = step(name, by, chip)
                else:
                    with plain_ops("xla"):
                        row = step(name, by, chip)
                print(row, flush=True)
                rows = [x for x in rows if (x["chip"], x["step"], x["by"]) != (chip, name, by)] + [row]
                if path:
                    path.write_text(
                        json.dumps({"jax": jax.__version__, "steps": rows}, indent=1) + "\n", encoding="utf-8"
                    )
                    path.with_suffix(".md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except DumpError as error:
        raise SystemExit(f"error: {error}") from None
