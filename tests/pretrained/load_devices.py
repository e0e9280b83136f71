"""Run by test_table.py in a process of its own: a published folder on 8 virtual devices, printed as JSON."""

import dataclasses
import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

import train
from eqxgen.configs import GPTConfig
from eqxgen.models import GPT
from eqxgen.pretrained import from_pretrained, gpt2
from train import convert, gpt
from train.config.base import to_dict
from train.parallel import make_mesh
from train.run.weights import save_model
from train.tasks.facts import TextFacts


def trained(folder, mesh):
    """A run's folder, and the table of its model as `train.load` shares it out."""
    config = dataclasses.replace(gpt.PRESETS["nano-cpu"], model=GPTConfig(dim=32, depth=2, heads=4, context=24))
    facts = TextFacts(64, 24)
    record = {"recipe": "gpt", "config": to_dict(config), "facts": facts.to_record()}
    (folder / "run").mkdir()
    model = gpt.model(config, facts)(jr.key(0))
    save_model(folder / "run" / "model.safetensors", model, record)
    (folder / "run" / "config.json").write_text(json.dumps(record))
    found = train.load(folder / "run" / "model.safetensors", mesh=mesh)
    return bool(eqx.tree_equal(found, model)), found.stack.blocks.mlp.up.weight


def main():
    model = GPT(64, GPTConfig(dim=32, depth=2, heads=4, context=24), key=jr.key(0))
    mesh = jax.make_mesh((8,), ("fsdp",))
    with tempfile.TemporaryDirectory() as folder:
        gpt2.to_pretrained(model, Path(folder))
        found = from_pretrained(folder, mesh=mesh)
    ours, theirs = (jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (model, found))
    largest = max(theirs, key=lambda leaf: leaf.size)
    with tempfile.TemporaryDirectory() as folder:
        record, loaded = trained(Path(folder), make_mesh("fsdp=8"))
        convert.main(convert.Config(source=folder + "/run", target=folder + "/out", family="gpt2", mesh="fsdp=8"))
        published, count = folder + "/again", len(jax.live_arrays())
        convert.main(convert.Config(source=folder + "/out", target=published, mesh="fsdp=8", parity=False))
        made = len(jax.live_arrays()) - count
        equal = Path(published, "model.safetensors").read_bytes() == Path(folder, "out/model.safetensors").read_bytes()
    result = {
        "loaded as it was": record,
        "loaded part": max(part.data.size for part in loaded.addressable_shards),
        "loaded": loaded.size,
        "arrays of a conversion": made,
        "equal": equal,
        "same": all(np.array_equal(a, b) for a, b in zip(ours, theirs)),
        "largest": largest.size,
        "largest part": max(part.data.size for part in largest.addressable_shards),
        "devices": len(largest.sharding.device_set),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
