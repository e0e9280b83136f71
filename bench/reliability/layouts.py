"""R8: a run does not depend on the devices and processes that it is on, nor on their change in its middle.

  python -m bench.reliability.layouts --folder NEW

The same command of a small recipe (--recipe: those of small.py, with several players, lazy turns and model state) on 1
process of 8 devices, 2 of 4 and 4 of 2 must give the same losses to rounding: between processes JAX's collectives on
the CPU (Gloo) add in another order than within one. Its checkpoint in the middle is then resumed on other numbers of
devices and other meshes: the restored state must be the same bits, the losses of the steps that follow the same to
rounding.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.reliability.common import ROOT, run
from bench.reliability.small import SMALL, flags, module

RESUMED = (("data=1", 1), ("data=2", 2), ("data=4", 4), ("data=8", 8), ("fsdp=8", 8), ("data=2,fsdp=2,model=2", 8))
FLAGS = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=20 --xla_cpu_collective_call_terminate_timeout_seconds=120"
)


def train(recipe: str, folder: Path, steps: int, devices: int, processes: int = 1, mesh: str = "") -> None:
    """Trains or resumes a run on so many processes of so many devices each.

    Raises:
        RuntimeError: a process failed, with the end of what it said.
    """
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices} {FLAGS}"
    env = os.environ | {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"}
    sizes = f"--steps {steps} --batch-size 16 --log-every 1 --checkpoint-every {steps // 3} --keep 9 --sample-every 0"
    line = [sys.executable, "-m", f"train.{module(recipe)}", "--run-dir", str(folder), *flags(recipe), *sizes.split()]
    line += ["--evals", "none", *(["--mesh", mesh] if mesh else [])]
    where = ["--coordinator", f"localhost:{_free_port()}", "--num-processes", str(processes)] if processes > 1 else []
    started = [
        subprocess.Popen(
            [*line, *where, *(["--process-id", str(number)] if where else [])],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    said = [process.communicate(timeout=900)[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("\n".join(text[-1500:] for text in said))


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())}


def difference(first: dict[int, float], second: dict[int, float]) -> float:
    """Largest relative difference of two runs' losses at the same steps."""
    assert first.keys() == second.keys()
    return max(abs(second[step] - first[step]) / abs(first[step]) for step in first)


def measure(count: int, folder: Path, recipe: str) -> dict[str, Any]:
    whole = folder / "8-devices"
    train(recipe, whole, count, 8)
    apart, off, restored = {}, {}, {}
    for processes in (2, 4):
        other = folder / f"{processes}-processes"
        train(recipe, other, count, 8 // processes, processes)
        apart[f"{processes} x {8 // processes}"] = difference(losses(whole), losses(other))
    middle = count // 3
    for mesh, devices in RESUMED:
        if "model" in mesh and recipe != "maskgit":
            continue  # convolutions are not split by features
        other = folder / f"resumed-{mesh}"
        shutil.copytree(whole, other)
        (other / "summary.json").unlink()
        for step in (2 * middle, 3 * middle):
            shutil.rmtree(other / "checkpoints" / str(step))
        restored[mesh] = _restores(other, mesh, devices)
        train(recipe, other, count, devices, mesh=mesh)
        off[mesh] = difference(losses(whole), losses(other))
    reached = all(restored.values()) and max(*off.values(), *apart.values()) <= 1e-6
    about = {"restored_bit_for_bit": restored, "losses_after_resuming": off, "losses_of_several_processes": apart}
    return {"reached": reached, "steps": count, "resumed_at": middle, **about}


def _restores(folder: Path, mesh: str, devices: int) -> bool:
    """True where a process of so many devices, under a mesh, reads the bits of the run's checkpoint."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", "bench.reliability.layouts", "digest", str(folder)]
    there, here = (
        subprocess.run(
            [*line, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=True
        ).stdout
        for words in ([mesh], [])
    )
    return there == here and len(here) > 64


def digest(folder: Path, mesh: str | None) -> None:
    """Prints a hash of every array of the newest checkpoint, restored under a mesh, or as the files hold it."""
    import hashlib

    import jax

    from train._files import read_json
    from train.checkpoint import Checkpoints
    from train.engine.recipes import recipe_of
    from train.engine.step import Setup, abstract_state
    from train.parallel import make_mesh
    from train.parallel.processes import on_host
    from train.params.paths import named_arrays

    path = folder / "config.json"
    record = read_json(path)
    run = recipe_of(record, path).open(folder, record, path)
    config, program = run.config, run.recipe.program(run.config, run.facts)
    devices = jax.devices() if mesh else jax.devices()[:1]
    setup = Setup.of(config, program, make_mesh(mesh or "", devices), on_cpu=True)
    restored = Checkpoints(folder / "checkpoints", 9).restore(abstract_state(setup))
    assert restored is not None
    for name, array in named_arrays(restored.state).items():
        print(name, array.dtype, hashlib.sha256(on_host(array).tobytes()).hexdigest())


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["digest"]:
        digest(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    else:
        run("R8", __doc__ or "", 30, measure, tuple(SMALL))
