"""Run by test_parallel.py in a process of its own on 8 virtual devices: runs of train.gpt on the axes of long sequences
and of experts, and the same runs resumed on others; prints their losses as JSON.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from train import gpt
from train.config.base import parse

FLAGS = (
    "--data.tokenizer bytes --model.dim 32 --model.depth 2 --model.heads 4 --model.context 16 --model.dropout 0.1 "
    "--batch-size 8 --steps 4 --log-every 1 --checkpoint-every 2 --sample-every 2 --sample-tokens 4 --eval-batches 2 "
    "--optim.warmup 1 --ema.decay 0.9 --compile-cache off --keep 9"
)
EXPERTS = "--model.experts 4 --model.capacity-factor 1.0"
RUNS = {
    "data=8": ("", "data=8", ["context=4,data=2"]),
    "context=4,data=2": ("", "context=4,data=2", ["data=8"]),
    "experts, data=8": (EXPERTS, "data=8", []),
    "experts": (EXPERTS, "expert=4,fsdp=2", ["data=8", "expert=2,context=2,fsdp=2"]),
}
"""Flags, mesh, and meshes on which the run goes on from its middle."""


def trained(folder: Path, flags: str, mesh: str) -> dict[str, float]:
    """Losses of a run by step, and of its held-out text."""
    line = [*FLAGS.split(), *flags.split(), "--data.name", str(folder.parent / "verse.txt"), "--mesh", mesh]
    assert gpt.main(parse("gpt", gpt.Config, gpt.PRESETS, "", [*line, "--run-dir", str(folder)])) == 0
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    found = {str(line["step"]): line["loss"] for line in lines if "loss" in line}
    assert (folder / "samples" / "step-0000002.txt").stat().st_size > 4
    return found | {"val_loss": json.loads((folder / "summary.json").read_text())["val_loss"]}


def main(names: list[str]) -> None:
    """Trains the runs of some names, and resumes them."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as path:
        root = Path(path)
        letters = np.random.default_rng(0).choice(list("abc def.\n"), 3000)
        (root / "verse.txt").write_text("".join(letters), encoding="utf-8")
        for name in names:
            flags, mesh, others = RUNS[name]
            found[name] = trained(root / name, flags, mesh)
            for other in others:
                again = root / f"{name} then {other}"
                shutil.copytree(root / name, again)
                (again / "summary.json").unlink()
                shutil.rmtree(again / "checkpoints" / "4")
                found[again.name] = trained(again, flags, other)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(RUNS))
