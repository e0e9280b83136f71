"""Bytes that a chip sends in a train step of a GPT on the axes of long sequences, experts and stages, from programs
compiled without a TPU.

  python -m bench.tpu.axes                    the rows below, to bench/results/tpu/axes.json; see docs/scaling.md

The model is that of `python -m train.gpt --preset gpt2` (12 blocks, width 768, bfloat16), with 8 experts where they are
split; by the compiled program and by the formulas of docs/scaling.md.
"""

import argparse
import dataclasses
import json
import math
from typing import Any

import jax
import jax.numpy as jnp

from bench.machine import RESULTS
from bench.tpu.hlo import exchanges
from bench.tpu.scaling import by_kind
from eqxgen.nn._pipeline import MICRO
from kernels.attention.problem import Extras
from kernels.context.checks import method
from kernels.context.traffic import sent
from train import gpt
from train.engine.dryrun import abstract_update, lower, memory_of, topology
from train.parallel import make_mesh
from train.params.conventions import EXPERTS
from train.params.paths import matches, named_arrays
from train.tasks.facts import TextFacts

OUT = RESULTS / "tpu" / "axes.json"
TOPOLOGY, BATCH = "v5e:2x4", 64
MESHES = ("data=8", "fsdp=8", "context=8", "data=2,context=4", "expert=8", "data=2,pipeline=4", "pipeline=2,fsdp=4")


def measure(text: str) -> dict[str, Any]:
    """One compiled step."""
    preset = gpt.PRESETS["gpt2"]
    more = {"experts": 8, "capacity_factor": 1.25} if "expert" in text else {}
    model = dataclasses.replace(preset.model, **more)
    config = dataclasses.replace(preset, model=model, mesh=text, batch_size=BATCH, accumulate=1)
    mesh = make_mesh(text, topology(TOPOLOGY))
    program = gpt.RECIPE.program(config, TextFacts(50257, model.context))
    update, inputs, state = abstract_update(config, program, mesh)
    compiled = lower(update, inputs, state).compile()
    found = exchanges(compiled.as_text())
    sizes = {path: math.prod(array.shape) for path, array in named_arrays(state.model).items()}
    return {
        "topology": TOPOLOGY,
        "mesh": text,
        "parameters": sum(sizes.values()),
        "batch": BATCH,
        **memory_of(compiled),
        "collectives": by_kind(found),
        "sent": sum(one.sent for one in found),
        "formula": formula(config, dict(mesh.shape), sizes),
    }


def formula(config: gpt.Config, mesh: dict[str, int], sizes: dict[str, int]) -> float:
    """Bytes that a chip sends, by docs/scaling.md."""
    model, count = config.model, math.prod(mesh.values())
    total, rounds = sum(sizes.values()), lambda n: (n - 1) / n
    blocks = sum(size for path, size in sizes.items() if ".blocks." in path)
    experts = sum(size for path, size in sizes.items() if any(matches(pattern, path) for pattern, _ in EXPERTS))
    n, k = mesh["pipeline"], MICRO
    here = BATCH * mesh["context"] // count
    copies = total - (experts if mesh["expert"] > 1 else 0) - (blocks if n > 1 else 0)
    bytes_ = 2 * rounds(count // mesh["fsdp"]) * 4 * copies / mesh["fsdp"]
    if mesh["fsdp"] > 1:
        turns = (k + 1) * n - 1 if n > 1 else 1
        bytes_ += rounds(mesh["fsdp"]) * (4 * (total - blocks) + 6 * turns * blocks / n)
    if n > 1:
        bytes_ += 2 * rounds(count // n // mesh["fsdp"]) * 4 * blocks / n / mesh["fsdp"]
        bytes_ += 6 * ((k + 1) * n - 1) / k * here * model.context * model.dim * 2
    if mesh["expert"] > 1:
        room = -(-(model.capacity_factor or 0) * model.experts_top_k * model.context // model.experts)
        numbers = here * model.experts * room * model.dim
        bytes_ += (6 if model.remat else 4) * rounds(mesh["expert"]) * numbers * 2 * model.depth
        bytes_ += 2 * rounds(count // mesh["expert"]) * 4 * experts / mesh["expert"]
    if (parts := mesh["context"]) > 1:
        head = model.dim // model.heads
        part = jax.ShapeDtypeStruct((1, model.context // parts, model.heads, head), jnp.bfloat16)
        costs, chosen = sent(part, part, part, Extras(), parts), method(None, part, part, part, Extras(), parts)
        again = (parts - 1) * 2 * part.size * 2 if chosen == "ring" else costs[chosen] / 2  # of a block computed again
        bytes_ += (costs[chosen] + (again if model.remat else 0)) * here * model.depth
    return bytes_


def table() -> str:
    """The table of docs/scaling.md."""
    rows = json.loads(OUT.read_text(encoding="utf-8"))["rows"]
    head = "mesh", "MB sent by a chip in a step", "by the formulas", "exchanges run", "GiB of state and batch", "GiB"
    lines = [f"| {' | '.join(head)} in all |\n", "|---" * len(head) + "|\n"]
    for row in rows:
        runs = sum(kind["runs"] for kind in row["collectives"].values())
        cells = (f"`{row['mesh']}`", f"{row['sent'] / 1e6:,.0f}", f"{row['formula'] / 1e6:,.0f}", f"{runs:,.0f}")
        memory = f"{row['GiB of state and batch']:.2f}", f"{row['GiB per device']:.2f}"
        lines.append(f"| {' | '.join((*cells, *memory))} |\n")
    return "".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for text in MESHES:
        rows.append(measure(text))
        print(json.dumps(rows[-1]), flush=True)
        OUT.write_text(json.dumps({"jax": jax.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
