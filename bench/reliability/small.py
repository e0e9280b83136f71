"""Recipes in a size whose step takes milliseconds, on which the scripts of this folder run."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from train.engine.recipe import Program
    from train.engine.step import Setup

SMALL = {
    # Dropout, averages, both moments of AdamW.
    "maskgit": "--model.dim 16 --model.heads 2 --model.depth 1 --model.hidden-dim 32 --model.dropout 0.1 "
    "--decode.steps 2",
    # Two players, a lazy penalty and a moving codebook, which is model state.
    "vqgan": "--model.width 8 --model.multipliers 1 2 --model.blocks 1 --model.latent-dim 4 --model.codes 16 "
    "--model.codebook ema --adversarial 0.1 --r1-every 4 --restart-every 3",
    # Batch norm, whose statistics are model state.
    "classify": "--model.width 8 --model.multipliers 1 2 --model.blocks 1 --model.dropout 0.1",
}
"""Flags of each on digits."""

TOPS = {"ids": 7, "label": 3}
"""Integers of a batch are below these."""


def flags(recipe: str) -> list[str]:
    """The words of a small recipe's command line."""
    return SMALL[recipe].split()


def small(recipe: str, *words: str) -> tuple[Any, "Program"]:
    """Config and program of a small recipe, with more words on its command line."""
    from train.config.base import parse
    from train.engine.recipes import named

    found = named(recipe)
    config = parse(recipe, found.config, found.presets, "", [*flags(recipe), *words])
    return config, found.program(config, found.on_paper(config))


def setup(recipe: str, *words: str) -> "Setup":
    """The same on one device, ready for a step."""
    import jax

    from train.engine.step import Setup
    from train.parallel import make_mesh

    config, program = small(recipe, *words)
    return Setup.of(config, program, make_mesh(devices=jax.devices()[:1]), on_cpu=True)


def batch_of(program: "Program", rows: int, step: int, count: int | None = None, dtype: str = "float32") -> Any:
    """A batch drawn from a step: `rows` rows, of which the first `count` are examples and the others fill up."""
    rng = np.random.default_rng(step)

    def draw(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        if kind == "float32":
            return rng.uniform(-1, 1, (rows, *shape)).astype(dtype)
        return rng.integers(TOPS[name], size=(rows, *shape)).astype(kind)

    weight = (np.arange(rows) < (rows if count is None else count)).astype(dtype)
    arrays = {name: draw(name, *kind) for name, kind in program.shapes.items()}
    return arrays | {"index": np.arange(rows, dtype=np.int32), "weight": weight}
