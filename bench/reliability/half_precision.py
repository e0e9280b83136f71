"""Whether a model trains in float16 and bfloat16 where it trains in float32.

  python -m bench.reliability.half_precision           writes half_precision.json, a few minutes on two CPU cores

The same MaskGIT on digits, seed and data; what differs is `--precision`. Losses are of each training step, averaged over blocks of steps.
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.reliability.common import RESULTS, about, write
from eqxgen.configs import MaskGITConfig
from train import maskgit
from train.loop import fit

STEPS, BLOCK = 160, 20


def train(precision: str) -> dict:
    """One run: the loss of each block of steps, and the scale at its end."""
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "steps": STEPS,
            "batch_size": 32,
            "log_every": 1,
            "sample_every": 0,
            "checkpoint_every": STEPS,
            "run_dir": f"{folder}/run",
        }
        model = MaskGITConfig(dim=64, depth=2, heads=2, hidden_dim=128, dropout=0.0, placement="pre")
        config = dataclasses.replace(maskgit.PRESETS["digits"], precision=precision, model=model, **values)

        def task():
            made = maskgit.task(config)
            evaluate = lambda model: {"eval_loss": 0.0}  # the judge is not what is asked here
            return dataclasses.replace(made, grid=lambda model, path: None, evaluate=evaluate)

        status = fit(config, task)
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        losses = np.array([float(line["loss"]) for line in lines])
    blocks = np.nanmean(losses.reshape(-1, BLOCK), axis=1)
    last = lines[-1]
    return {
        "precision": precision,
        "status": status,
        "loss_by_block": [round(float(x), 5) for x in blocks],
        "skipped": last["skipped"],
        "loss_scale": last["loss_scale"],
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
