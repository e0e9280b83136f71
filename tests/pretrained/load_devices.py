"""Run by test_table.py in a process of its own: a published folder on 8 virtual devices, printed as JSON."""

import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from eqxgen.configs import GPTConfig
from eqxgen.models import GPT
from eqxgen.pretrained import from_pretrained, gpt2


def main():
    model = GPT(64, GPTConfig(dim=32, depth=2, heads=4, context=24), key=jr.key(0))
    mesh = jax.make_mesh((8,), ("fsdp",))
    with tempfile.TemporaryDirectory() as folder:
        gpt2.to_pretrained(model, Path(folder))
        found = from_pretrained(folder, mesh=mesh)
    ours, theirs = (jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (model, found))
    largest = max(theirs, key=lambda leaf: leaf.size)
    result = {
        "same": all(np.array_equal(a, b) for a, b in zip(ours, theirs)),
        "largest": largest.size,
        "largest part": max(part.data.size for part in largest.addressable_shards),
        "devices": len(largest.sharding.device_set),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
