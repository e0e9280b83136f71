"""Bytes over the links of a TPU for attention on a sharded sequence, from programs compiled without a TPU.

  python -m bench.tpu.context                 the rows below, to bench/results/tpu/context.json; see docs/scaling.md

Causal bfloat16, one forward and one backward pass, by `context_attention` in zig-zag order. For each call and method:
what a chip sends by the compiled program and by the formula that chooses the method, and the bytes of the busiest link.
"""

import argparse
import collections
import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.machine import RESULTS
from bench.tpu.attention import topology
from bench.tpu.hlo import Collective, exchanges
from kernels import context_attention
from kernels.attention.problem import Extras
from kernels.context.traffic import METHODS, sent

OUT = RESULTS / "tpu" / "context.json"
HEADS, HEAD_DIM, TOKENS = 16, 128, 4096  # tokens of a chip
CALLS = [("v5e:2x4", 16), ("v5e:2x4", 4), ("v5e:2x4", 1), ("v5e:4x4", 4)]
Place = tuple[int, int]


def circle(rows: int, columns: int) -> list[Place]:
    """The chips of a grid with an even number of rows in an order in which each is next to the one before."""
    snake = [(x, y) for x in range(rows) for y in range(1, columns)[:: 1 if x % 2 == 0 else -1]]
    return snake + [(x, 0) for x in reversed(range(rows))]


def route(start: Place, end: Place) -> Iterator[tuple[Place, Place]]:
    """The links from a chip to another, first along the second axis of the grid."""
    for axis in (1, 0):
        while start[axis] != end[axis]:
            step = list(start)
            step[axis] += 1 if end[axis] > start[axis] else -1
            yield start, (step[0], step[1])
            start = (step[0], step[1])


def busiest(found: list[Collective], places: list[Place]) -> float:
    """Bytes of the link that carries the most, on a grid that is not closed."""
    loads: dict[Any, float] = collections.defaultdict(float)
    count = len(places)
    for one in found:
        for i, place in enumerate(places):
            ends = [(i + 1) % count] if one.kind == "collective-permute" else [j for j in range(count) if j != i]
            share = 1 if one.kind == "collective-permute" else count
            for end in ends:
                for link in route(place, places[end]):
                    loads[link] += one.bytes * one.times / share
    return max(loads.values())


def measure(name: str, kv_heads: int, method: str) -> dict[str, Any]:
    """One call compiled for a topology."""
    chips = {tuple(chip.coords[:2]): chip for chip in topology(name).devices}
    rows, columns = (max(place[axis] for place in chips) + 1 for axis in (0, 1))
    places = circle(rows, columns)
    mesh = Mesh(np.array([chips[place] for place in places]), ("context",))
    spec = PartitionSpec(None, "context")

    def both(q, k, v, weights):
        attend = functools.partial(context_attention, axis_name="context", method=method, order="zigzag")
        total = lambda q, k, v: jnp.sum(attend(q, k, v, is_causal=True).astype(jnp.float32) * weights)
        value, grads = jax.value_and_grad(total, (0, 1, 2))(q, k, v)
        return value[None], grads

    def whole(heads: int) -> jax.ShapeDtypeStruct:
        shape = (1, TOKENS * mesh.size, heads, HEAD_DIM)
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, spec))

    q, k = whole(HEADS), whole(kv_heads)
    mapped = jax.shard_map(both, mesh=mesh, in_specs=(spec,) * 4, out_specs=(PartitionSpec("context"), (spec,) * 3))
    compiled: Any = jax.jit(mapped).lower(q, k, k, q).compile()
    text = compiled.as_text()
    found = exchanges(text)
    unexpected = {one.kind for one in found} - {"collective-permute", "all-to-all"}
    if unexpected:
        raise RuntimeError(f"bench.tpu.context counts permutes and all-to-alls: the program has {sorted(unexpected)}")
    part = lambda x: jax.ShapeDtypeStruct((1, TOKENS, *x.shape[2:]), x.dtype)
    return {
        "topology": name,
        "devices": mesh.size,
        "tokens": TOKENS * mesh.size,
        "heads": HEADS,
        "kv_heads": kv_heads,
        "head_dim": HEAD_DIM,
        "method": method,
        "runs": sum(one.times for one in found),
        "sent": sum(one.sent for one in found),
        "formula": sent(part(q), part(k), part(k), Extras(), mesh.size)[method],
        "busiest link": busiest(found, places),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "temporary bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def table() -> str:
    """The table of docs/scaling.md."""
    rows = json.loads(OUT.read_text(encoding="utf-8"))["rows"]
    head = "topology", "heads, key heads", "method", "MB sent by a chip", "by the formula", "busiest link, MB"
    lines = [f"| {' | '.join((*head, 'exchanges run', 'MB of temporary memory'))} |\n", "|---" * 8 + "|\n"]
    for row in rows:
        numbers = (f"{row[key] / 1e6:,.0f}" for key in ("sent", "formula", "busiest link"))
        cells = (
            row["topology"],
            f"{row['heads']}, {row['kv_heads']}",
            f"`{row['method']}`",
            *numbers,
            str(row["runs"]),
            f"{row['temporary bytes'] / 1e6:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for name, kv_heads in CALLS:
        for method in METHODS:
            rows.append(measure(name, kv_heads, method))
            print(json.dumps(rows[-1]), flush=True)
    OUT.write_text(json.dumps({"jax": jax.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
