"""Collectives of a train step between chips, from programs compiled ahead of time for TPU topologies, without a TPU.

  python -m bench.tpu.scaling                 the table below, to bench/results/tpu/scaling.json; see docs/scaling.md
  python -m bench.tpu.scaling v5e:4x4         one topology

The step is that of `python -m train.maskgit --preset imagenet256`. For each mesh: the collectives of the compiled step,
how often each runs, its bytes, and the bytes that a chip puts on its links for them if rings carry them out.
"""

import argparse
import dataclasses
import json
from typing import Any

import jax

from bench.tpu.hlo import Collective, exchanges
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


def measure(name: str, mesh_text: str) -> dict[str, Any]:
    """One compiled step: its memory, and its exchanges by kind and by the number of devices that share in them."""
    config = dataclasses.replace(maskgit.PRESETS["imagenet256"], mesh=mesh_text)
    mesh = make_mesh(mesh_text, topology(name))
    update, inputs, state = abstract_update(
        config, maskgit.RECIPE.program(config, TokenFacts((256, 256, 3), 1000, 256, 1024)), mesh
    )
    compiled = lower(update, inputs, state).compile()
    found = exchanges(compiled.as_text())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.model) if isinstance(leaf, jax.ShapeDtypeStruct))
    about = {
        "topology": name,
        "mesh": mesh_text,
        "devices": mesh.size,
        "parameters": parameters,
        "batch": config.batch_size,
    }
    about["TFLOP per device"] = flops_of(update, inputs, state) / mesh.size / 1e12
    return {
        **about,
        **memory_of(compiled),
        "collectives": by_kind(found),
        "sent_per_device": sum(one.sent for one in found),
    }


def by_kind(found: list[Collective]) -> dict[str, dict[str, float]]:
    """Exchanges by kind and by the number of devices that share in them."""
    rows: dict[str, dict[str, float]] = {}
    for one in found:
        row = rows.setdefault(f"{one.kind} of {one.devices}", {"exchanges": 0, "runs": 0, "bytes": 0, "sent": 0})
        for key, value in {"exchanges": 1, "runs": one.times, "bytes": one.bytes * one.times, "sent": one.sent}.items():
            row[key] += value
    return rows


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
