"""Train steps of nets beside the same nets in PyTorch's eager mode, in interleaved rounds: `python -m
bench.models.torch_steps --net unet dit`, where PyTorch and diffusers are installed.

Loss, gradients and Adam on random data in float32, on all cores that the process may use: with `taskset -c 0` on one,
whose rows end with -1. Writes bench/results/cpu/torch_steps.json: medians of milliseconds, and the median and quartiles
of PyTorch's time over ours in the same round, above 1 where ours is faster. A row that is measured again takes the
place of its older one. `--tiny` runs small nets and writes nothing.
"""

import argparse
import functools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench.gpu.steps import contenders
from bench.machine import about, versions
from bench.models import bench_unet
from bench.models.steps import bert, classifier, gan, t5, tokenizer
from bench.race import OURS, Makers, Turn, medians, prepare, race, ratios
from eqxgen.configs import DiTConfig, UNetConfig
from train.engine.host_memory import keep_freed_memory

RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "torch_steps.json"
TORCH = "torch eager"


class Row(NamedTuple):
    """A net.

    Attributes:
        title: the net, in words.
        batch: examples of a step.
        makers: (batch, tiny) -> ours and PyTorch's step.
    """

    title: str
    batch: int
    makers: Callable[[int, bool], Makers]


def unet(batch: int, tiny: bool) -> Makers:
    """From equal weights."""
    small = UNetConfig(width=32, multipliers=(1, 2), blocks=1)
    config, side = (small, 8) if tiny else (bench_unet.CONFIG, bench_unet.SIDE)
    return {
        OURS: functools.partial(bench_unet.ours, config, batch, side),
        TORCH: functools.partial(bench_unet.torch_eager, config, batch, side),
    }


def dit(batch: int, tiny: bool) -> Makers:
    """Latents of 32 x 32 x 4, with AdamW; PyTorch's net is that of the original code, its weights are others."""
    import jax.numpy as jnp

    small = DiTConfig(dim=16, depth=2, heads=2, hidden_dim=24)
    sizes, config = ((4, 4, 3, 5), small) if tiny else ((32, 32, 4, 1000), DiTConfig.small())
    makers = contenders(batch, sizes, config, jnp.float32)[1]
    return {name: makers[name] for name in (OURS, TORCH)}


ROWS = {
    "bert": Row("BERT of 4 blocks, 256 wide, 128 tokens, masked words", 16, functools.partial(bert.makers, TORCH)),
    "unet": Row("DDPM's CIFAR-10 U-Net, 32 pixels", 8, unet),
    "dit": Row("DiT-S/2, 32 x 32 x 4 latents", 8, dit),
    "tokenizer-digits": Row(
        "VQGAN of the digits preset, 8 pixels", 64, functools.partial(tokenizer.makers, "digits", TORCH)
    ),
    "tokenizer-mnist": Row(
        "VQGAN of the MNIST preset, 28 pixels", 64, functools.partial(tokenizer.makers, "mnist", TORCH)
    ),
    "stylegan2": Row(
        "StyleGAN2, 32 pixels, 64 wide: 16 steps of both players with R1 once",
        32,
        functools.partial(gan.makers, "stylegan2", TORCH),
    ),
    "r3gan": Row(
        "R3GAN, 32 pixels, 64 wide in 8 groups: a step of both players with R1 and R2",
        32,
        functools.partial(gan.makers, "r3gan", TORCH),
    ),
    "vit": Row(
        "ViT of 6 blocks, 192 wide, 32 pixels in patches of 4", 32, functools.partial(classifier.makers, "ViT", TORCH)
    ),
    "resnet": Row("ResNet-18, 32 pixels", 32, functools.partial(classifier.makers, "ResNet", TORCH)),
    "t5": Row("T5-small of version 1.1, 64 tokens to 32", 8, functools.partial(t5.makers, TORCH)),
}


def measured(row: Row, batch: int, seconds: float, rounds: int, tiny: bool) -> dict[str, Any]:
    """A row of the file.

    Raises:
        RuntimeError: one of the two cannot run.
    """
    sides, reasons = prepare(row.makers(batch, tiny), Turn())
    if reasons:
        raise RuntimeError(f"both must run: {reasons}")
    times = race(sides, seconds, Turn(), rounds)
    return {
        "net": row.title,
        "batch": batch,
        "about": about() | {"versions": versions(("jax", "jaxlib", "torch", "diffusers"))},
        "ms": medians(times),
        "rounds": rounds,
        "torch over ours": ratios(times)[TORCH],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--batch", type=int, help="examples of a step; by default the row's")
    parser.add_argument("--seconds", type=float, default=120.0, help="of a net, after compilation")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tiny", action="store_true", help="small nets; nothing is written")
    asked = parser.parse_args(argv)
    keep_freed_memory()
    import torch

    whole = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole
    torch.set_num_threads(cores)
    ending = "" if cores == whole else f"-{cores}"
    for name in asked.net:
        found = measured(ROWS[name], asked.batch or ROWS[name].batch, asked.seconds, asked.rounds, asked.tiny)
        spread = found["torch over ours"]
        print(f"{name}: {found['ms']}, {spread['median']:.3f} ({spread['low']:.3f} to {spread['high']:.3f}) times ours")
        if not asked.tiny:
            rows = json.loads(RESULT.read_text()) if RESULT.exists() else {}
            RESULT.write_text(json.dumps(rows | {name + ending: found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
