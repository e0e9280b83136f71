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
    # Alternating players, batch norms of both, penalties as lazy turns.
    "gan": "--dcgan.width 8 --dcgan.base 2 --dcgan.latent-dim 8 --penalty.r1 0.1 --penalty.r2 0.1 --penalty.every 2 "
    "--augmentation diffaugment",
    # Mean style vector, probability of an augmentation that moves, two kinds of lazy turns.
    "gan-stylegan2": "--family stylegan2 --stylegan2.width 64 --stylegan2.max-width 8 --stylegan2.latent-dim 8 "
    "--stylegan2.mapping 2 --penalty.path 1 --penalty.path-every 3 --penalty.every 2 --mixing 0.5 "
    "--augmentation ada --target 0.6 --speed 2000",
    # A posterior that is drawn, several draws a bound, pixels drawn from grey levels.
    "vae": "--model.hidden 16 --model.latent-dim 4 --k 3 --binarise",
    # Noise levels, hidden labels and dropout that are drawn.
    "diffusion": "--backbone unet --unet.width 8 --unet.multipliers 1 2 --unet.blocks 1 --unet.groups 4 "
    "--unet.dropout 0.1 --sampling.steps 2",
}
"""Flags of each on digits; a name is that of a recipe, and after a hyphen a variant's."""

TOPS = {"ids": 7, "other": 7, "label": 3, "text": 9, "group": 5, "source": 9, "target": 9}
"""Integers of a batch are below these."""


def module(name: str) -> str:
    """The recipe of a small one."""
    return name.partition("-")[0]


def flags(name: str) -> list[str]:
    """The words of a small recipe's command line."""
    return SMALL[name].split()


def small(name: str, *words: str) -> tuple[Any, "Program"]:
    """Config and program of a small recipe, with more words on its command line."""
    from train.config.base import parse
    from train.engine.recipes import named

    found = named(module(name))
    config = parse(module(name), found.config, found.presets, "", [*flags(name), *words])
    return config, found.program(config, found.on_paper(config))


def setup(name: str, *words: str) -> "Setup":
    """The same on one device, ready for a step."""
    import jax

    from train.engine.step import Setup
    from train.parallel import make_mesh

    config, program = small(name, *words)
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
