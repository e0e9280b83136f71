"""Collectives of a train step between chips, from programs compiled ahead of time for TPU topologies, without a TPU.

  python -m bench.tpu.scaling                 the table below, to bench/results/tpu/scaling.json; see docs/scaling.md
  python -m bench.tpu.scaling v5e:4x4         one topology

The step is that of `python -m train.maskgit --preset imagenet256`. For each mesh: the collectives of the compiled step,
how often each runs, its bytes, and the bytes that a chip puts on its links for them if rings carry them out.
"""

import argparse
import dataclasses
import json
import math
import re
from typing import Any, NamedTuple

import jax

from bench.tpu.scaling_model import OUT
from train import maskgit
from train.engine.dryrun import abstract_update, lower, memory_of, topology
from train.parallel import make_mesh
from train.report.peak import flops_of
from train.tasks.facts import TokenFacts

MESHES = {
    "v5e:4x4": ("data=16", "fsdp=16", "data=4,fsdp=4", "data=4,model=4"),
    "v5p:2x2x2": ("data=8", "fsdp=8", "data=2,fsdp=2,model=2"),
}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
LINE = re.compile(rf"%([\w.\-]+) = (\(.*?\)|\S+) ({'|'.join(KINDS)})\(")
ARRAY = re.compile(r"\b(pred|[subf]\d+|bf16)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One exchange of a compiled program.

    Attributes:
        kind: one of `KINDS`.
        devices: that take part in it together.
        bytes: of its result; of the operand for a reduce-scatter.
        times: it runs in a step.
    """

    kind: str
    devices: int
    bytes: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by rings."""
        rounds = {"all-reduce": 2.0, "collective-permute": self.devices / max(self.devices - 1, 1)}.get(self.kind, 1.0)
        return rounds * self.bytes * (self.devices - 1) / self.devices * self.times


def collectives(text: str, depth: int) -> list[Collective]:
    """The exchanges of a compiled program.

    The compiler splits some into asynchronous pieces: these share the name of a chain, and count once. A collective
    inside a loop runs once per layer: the layers' scan is the only loop around parameters.

    Args:
        text: the program's optimised HLO.
        depth: number of layers.
    """
    bodies = bodies_of(text)
    inside = reachable(
        bodies, {name for lines in bodies.values() for line in lines for name in re.findall(r"body=%([\w.\-]+)", line)}
    )
    found: dict[tuple[str, str], Collective] = {}
    for body, lines in bodies.items():
        for line in lines:
            if match := LINE.search(line):
                name, result, kind = match.groups()
                chain = re.search(r'chain_id="\d+"', line)
                channel = re.search(r"channel_id=\d+", line)
                devices = _group(line)
                size = sum(bytes_of(dtype, shape) for dtype, shape in ARRAY.findall(result)) * (
                    devices if kind == "reduce-scatter" else 1
                )
                key = (kind, f"{chain.group()} {channel.group()}" if chain and channel else name)
                found.setdefault(key, Collective(kind, devices, size, depth if body in inside else 1))
    return list(found.values())


def bodies_of(text: str) -> dict[str, list[str]]:
    """The lines of each computation."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = bodies.setdefault(match.group(1), [])
        else:
            lines.append(line)
    return bodies


def reachable(bodies: dict[str, list[str]], names: set[str]) -> set[str]:
    """These computations and all that they call."""
    seen: set[str] = set()
    while names:
        seen |= names
        called = (word for name in names for line in bodies.get(name, []) for word in re.findall(r"%([\w.\-]+)", line))
        names = {word for word in called if word in bodies} - seen
    return seen


def _group(line: str) -> int:
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match.group(1).count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match.group(1))
    return 2


def bytes_of(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return bits // 8 * math.prod(int(size) for size in shape.split(",") if size)


def measure(name: str, mesh_text: str) -> dict[str, Any]:
    """One compiled step: its memory, and its exchanges by kind and by the number of devices that share in them."""
    config = dataclasses.replace(maskgit.PRESETS["imagenet256"], mesh=mesh_text)
    mesh = make_mesh(mesh_text, topology(name))
    update, inputs, state = abstract_update(
        config, maskgit.RECIPE.program(config, TokenFacts((256, 256, 3), 1000, 256, 1024)), mesh
    )
    compiled = lower(update, inputs, state).compile()
    found = collectives(compiled.as_text(), config.model.depth)
    rows: dict[str, dict[str, float]] = {}
    for one in found:
        row = rows.setdefault(f"{one.kind} of {one.devices}", {"exchanges": 0, "runs": 0, "bytes": 0, "sent": 0})
        for key, value in {"exchanges": 1, "runs": one.times, "bytes": one.bytes * one.times, "sent": one.sent}.items():
            row[key] += value
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.model) if isinstance(leaf, jax.ShapeDtypeStruct))
    about = {
        "topology": name,
        "mesh": mesh_text,
        "devices": mesh.size,
        "parameters": parameters,
        "batch": config.batch_size,
    }
    about["TFLOP per device"] = flops_of(update, inputs, state) / mesh.size / 1e12
    return {**about, **memory_of(compiled), "collectives": rows, "sent_per_device": sum(one.sent for one in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topologies", nargs="*", default=list(MESHES), help="of those in the table")
    parser.add_argument("--again", action="store_true", help="rows that are in the file too")
    given = parser.parse_args()
    rows = json.loads(OUT.read_text())["rows"] if OUT.exists() else []
    for name in given.topologies:
        for mesh in MESHES[name]:
            if not given.again and any((old["topology"], old["mesh"]) == (name, mesh) for old in rows):
                continue
            row = measure(name, mesh)
            print(json.dumps(row), flush=True)
            rows = [*(old for old in rows if (old["topology"], old["mesh"]) != (name, mesh)), row]
            OUT.write_text(json.dumps({"jax": jax.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
