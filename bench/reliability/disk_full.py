"""R6: a disk that is full, or fails, at a write, an fsync or a rename of a run.

  python -m bench.reliability.disk_full --folder /tmp/r6       needs a C compiler

A small run (config, checkpoints, model, metrics, with the engine's own functions) makes some hundred such calls. In
each trial one of them fails, in Python or inside Orbax's C++, by a library that is loaded before libc: with ENOSPC, and
all later ones too, or once with EIO. The run must end with an error that names the path and the free bytes (threads of
other libraries may add their own words); the next start must find every listed step whole, leave no temporary file, and
complete.
"""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.reliability.common import ROOT, run

SIZE, STEPS = 0.02, 4


def measure(count: int, folder: Path) -> dict[str, Any]:
    library = folder / "fault.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name("fault.c")), "-ldl"],
        check=True,
    )
    calls = _calls(library, folder)
    points = sorted({1 + round(i * (calls - 1) / max(count - 1, 1)) for i in range(count)})
    numbers = {
        "calls": calls,
        "points": 0,
        "named_path_and_bytes": 0,
        "steps_whole": 0,
        "nothing_left": 0,
        "completed": 0,
    }
    for i, point in enumerate(points):
        run_dir = folder / f"at-{point}"
        code = errno.EIO if i % 2 else errno.ENOSPC
        done = _child(run_dir, library, FAULT_AT=str(point), FAULT_ERRNO=str(code))
        numbers["points"] += 1
        # Threads of TensorBoard and Orbax may write into the same line.
        named = done.returncode == 1 and re.search(rf"error: {run_dir}\S*: .*bytes are free", done.stderr) is not None
        numbers["named_path_and_bytes"] += named
        again = _child(run_dir)
        report = json.loads(_report(run_dir).read_text()) if again.returncode == 0 else {"damaged": 1}
        numbers["steps_whole"] += report["damaged"] == 0
        numbers["nothing_left"] += not [
            path for path in run_dir.rglob("*") if path.name.endswith((".part", "-tmp")) or path.name == "deleted"
        ]
        numbers["completed"] += again.returncode == 0 and report["last"] == STEPS
        if not named or again.returncode:
            print(
                f"at {point} with {errno.errorcode[code]}: status {done.returncode}: {done.stderr[-600:]} "
                f"{again.stderr[-600:]}",
                file=sys.stderr,
            )
        shutil.rmtree(run_dir)
    everywhere = all(
        numbers[name] == len(points) for name in ("named_path_and_bytes", "steps_whole", "nothing_left", "completed")
    )
    return numbers | {"reached": everywhere}


def _calls(library: Path, folder: Path) -> int:
    """Number of calls that could fail."""
    done = _child(folder / "whole", library, FAULT_AT="0", FAULT_ERRNO="5", FAULT_COUNT=str(folder / "count"))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int((folder / "count").read_text())


def _child(run_dir: Path, library: Path | None = None, **faults: str) -> subprocess.CompletedProcess[str]:
    """The small run in a process of its own."""
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    if library is not None:
        env |= {"LD_PRELOAD": str(library), "FAULT_FOLDER": str(run_dir), **faults}
    line = [sys.executable, "-m", "bench.reliability.disk_full", "--child", str(run_dir)]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def _report(run_dir: Path) -> Path:
    return run_dir.with_name(f"report-{run_dir.name}.json")


def _run(run_dir: Path) -> None:
    """Saves steps up to the last; reports how many listed steps were damaged when it began, and the last step."""
    from bench.reliability.common import state_of, template_of
    from train import maskgit
    from train._files import write_json
    from train.checkpoint import Checkpoints
    from train.checkpoint.manifest import damage
    from train.report.log import Log
    from train.run.folder import RunFolder
    from train.run.weights import save_model

    config = dataclasses.replace(maskgit.PRESETS["digits"], run_dir=str(run_dir))
    with RunFolder.open(config, "maskgit") as run:
        run.describe({})
        folder = run.path
        checkpoints = Checkpoints(folder / "checkpoints", keep=2)
        damaged = sum(damage(folder / "checkpoints" / str(step)) is not None for step in checkpoints.steps())
        restored = checkpoints.restore(template_of(SIZE))
        first = restored.step if restored else 0
        log = Log(folder, STEPS, first)
        for step in range(first + 1, STEPS + 1):
            state = state_of(step, SIZE)
            log.metrics(step, {"loss": 1.0, "examples": step, "examples_per_s": 1.0, "step_ms": 1.0, "seconds": 0.0})
            checkpoints.save(step, state)
            save_model(folder / "model.safetensors", state["ema"], {})
        checkpoints.close()
        log.close()
        write_json(folder / "summary.json", {})
        last = checkpoints.steps()[-1]
    _report(run_dir).write_text(json.dumps({"damaged": damaged, "last": last}))


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        from train.engine.command import run as command

        command(lambda: _run(Path(sys.argv[2])))
    else:
        run("R6", __doc__ or "", 60, measure)
