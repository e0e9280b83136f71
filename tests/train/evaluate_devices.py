"""Run by test_evaluators.py in a process of its own: a run of fsdp=8 on 8 virtual devices, and the memory of every
program that computed its samples and numbers, printed as JSON.
"""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax

from eqxgen.configs import MaskGITConfig
from tests.train.small_runs import tiny
from train import maskgit
from train.engine.recipes import load
from train.evaluators import stream

MODEL = MaskGITConfig(dim=96, depth=8, heads=2, hidden_dim=384, dropout=0.0, placement="pre")
NUMBERS = ("argument_size_in_bytes", "temp_size_in_bytes")


def main(folder: Path) -> None:
    programs, compiled, apply, started = {}, {}, stream.apply, stream.Stream._started

    def measured(function, tree, batch, mesh):
        if function not in programs:
            compiled[function] = apply.lower(function, tree, batch, mesh).compile()
            memory = compiled[function].compiled.memory_analysis()
            programs[function] = [getattr(memory, name) for name in NUMBERS]
        return compiled[function](function, tree, batch, mesh)

    stream.apply = measured
    # One example at a time on each device; the activations of a full batch would be larger than this model.
    stream.Stream._started = lambda self, function, tree, examples: started(
        self, function, tree, examples._replace(batch=8)
    )
    config = tiny(folder, steps=2, mesh="fsdp=8", model=MODEL, eval_samples=40, checkpoint_every=2)
    assert maskgit.main(config) == 0
    arrays = jax.tree.leaves(eqx.filter(load(folder / "model.safetensors"), eqx.is_array))
    found = {getattr(function, "__name__", type(function).__name__): memory for function, memory in programs.items()}
    print(json.dumps({"whole": sum(array.nbytes for array in arrays), "programs": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
