"""Small runs that the tests of the loop share."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from eqxgen.configs import MaskGITConfig
from train import maskgit
from train.config.optim import EmaConfig
from train.report.log import Log
from train.report.meter import CLOCKED

TINY = MaskGITConfig(dim=16, depth=2, heads=2, hidden_dim=32, dropout=0.1, placement="pre")


def tiny(folder: Path, **changes) -> maskgit.Config:
    """A MaskGIT on digits that takes a second; dropout is on, so that its keys are tested too."""
    values = {
        "steps": 6,
        "batch_size": 8,
        "log_every": 2,
        "checkpoint_every": 3,
        "sample_every": 0,
        "ema": EmaConfig(decay=0.9),
        "model": TINY,
    }
    decode = dataclasses.replace(maskgit.PRESETS["digits"].decode, steps=2)
    return dataclasses.replace(maskgit.PRESETS["digits"], run_dir=str(folder), decode=decode, **values | changes)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def words(**options) -> list[str]:
    """Options as the words of a command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def crashed_and_resumed(recipe, config, after: int, monkeypatch) -> None:
    """Ends a run once it has logged a step, and starts it again.

    Args:
        recipe: the module.
        after: the step, of which there is no checkpoint.
    """
    spoken = Log.metrics

    def die(self, step, values):
        spoken(self, step, values)
        if step >= after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "metrics", die)
        with pytest.raises(KeyboardInterrupt):
            recipe.main(config)
    assert not (Path(config.run_dir) / "summary.json").exists()
    assert recipe.main(config) == 0
