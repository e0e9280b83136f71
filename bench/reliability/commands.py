"""Small recipes on digits as processes that can be watched and ended: what R2 and R4 start."""

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.reliability.common import ROOT
from bench.reliability.small import flags as words_of
from bench.reliability.small import module
from train.report.meter import CLOCKED


def start(run_dir: Path, cache: Path, *flags: str, recipe: str = "maskgit") -> subprocess.Popen[str]:
    """The command of a small recipe, with its programs compiled once for all in a cache folder."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XDG_CACHE_HOME": str(cache),
    }
    env.setdefault(
        "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )  # compiled sooner
    line = [
        sys.executable,
        "-m",
        f"train.{module(recipe)}",
        *words_of(recipe),
        "--run-dir",
        str(run_dir),
        "--batch-size",
        "8",
        "--log-every",
        "1",
    ]
    return subprocess.Popen(
        [*line, "--sample-every", "0", *flags],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def logged(run_dir: Path) -> dict[int, dict]:
    """The lines of metrics.jsonl by step, without what a clock says; the last is left out if a kill tore it."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {row["step"]: {name: value for name, value in row.items() if name not in CLOCKED} for row in rows}
