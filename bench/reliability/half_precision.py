"""Training in float16 and bfloat16 against float32.

  python -m bench.reliability.half_precision           writes half_precision.json, a few minutes on two CPU cores

The same MaskGIT on digits, seed and data, by the recipe's loss and optimiser; what differs is `--precision`. Losses are
of training steps, averaged over blocks of them.
"""

import dataclasses
import time
from pathlib import Path

import jax
import jax.random as jr
import numpy as np

from bench.reliability.common import RESULTS, about, write
from eqxgen.configs import MaskGITConfig
from train import maskgit
from train.data.feed.order import Order
from train.engine.step import Setup, make_step, sharded_state
from train.parallel import make_mesh

STEPS, BLOCK = 160, 20


def train(precision: str) -> dict:
    """One run: the loss of each block of steps, and the scale and the updates left out at its end."""
    model = MaskGITConfig(dim=64, depth=2, heads=2, hidden_dim=128, dropout=0.0, placement="pre")
    values = {"steps": STEPS, "batch_size": 32, "precision": precision, "model": model}
    config = dataclasses.replace(maskgit.PRESETS["digits"], **values)
    task = maskgit.RECIPE.task(config, Path())
    setup = Setup.of(config, task.program, make_mesh("", jax.devices()[:1]), on_cpu=True)
    state, step = sharded_state(setup, jr.key(0)), make_step(setup)
    order, losses = Order(config.seed, config.batch_size, len(task.source)), []
    for number in range(STEPS):
        part = order.part(number)
        batch = task.batch(part) | {"index": part.index, "weight": np.ones(len(part.index), np.float32)}
        state, metrics = step((batch, jr.key(1)), state)
        losses.append(float(metrics["loss"]))
    return {
        "precision": precision,
        "loss_by_block": [round(float(x), 5) for x in np.nanmean(np.reshape(losses, (-1, BLOCK)), axis=1)],
        "losses_not_finite": int(np.sum(~np.isfinite(losses))),
        "skipped": int(state.skipped["main"].total),
        "loss_scale": float(state.scale["main"].factor),
    }


def main():
    begin = time.perf_counter()
    rows = [train(precision) for precision in ("float32", "bfloat16", "float16")]
    reference = np.array(rows[0]["loss_by_block"])
    for row in rows[1:]:
        row["largest_relative_difference"] = float(np.max(np.abs(np.array(row["loss_by_block"]) / reference - 1)))
    write(RESULTS / "half_precision.json", {"steps": STEPS, "block": BLOCK, "runs": rows, **about(begin)})


if __name__ == "__main__":
    main()
