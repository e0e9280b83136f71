"""R4: SIGTERM and SIGINT save the current step and end with 143 and 130, with and without `jax.distributed`; a second
one ends at once.

  python -m bench.reliability.stop_by_signal --folder /tmp/r4

In turn: SIGTERM and SIGINT, in one process, in one that `jax.distributed` was started in, and (every fifth) in two
processes, of which one gets the signal and both must stop at the same step. Afterwards the second signal: while the
first is being served, and in the middle of a compilation, where Python itself would not listen.
"""

import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.reliability.commands import logged, start
from bench.reliability.common import run

LONG = ("--steps", "1000000", "--checkpoint-every", "1000000")


def measure(count: int, folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "signals": 0,
        "right_status": 0,
        "saved_the_current_step": 0,
        "stopped_at_one_step": 0,
        "pairs": 0,
    }
    slowest = 0.0
    for trial in range(count):
        number = (signal.SIGTERM, signal.SIGINT)[trial % 2]
        processes = 2 if trial % 5 == 4 else trial // 2 % 2  # 0: without jax.distributed
        run_dir = folder / f"run-{trial}"
        ended, seconds = _stopped(run_dir, folder / "cache", number, processes)
        slowest = max(slowest, seconds)
        saved = [int(step) for step in re.findall(r"saved step (\d+)", "".join(output for _, output in ended))]
        numbers["signals"] += 1
        numbers["right_status"] += all(status == 128 + number for status, _ in ended)
        numbers["saved_the_current_step"] += bool(saved) and _newest(run_dir) == saved[0] == max(logged(run_dir))
        numbers["pairs"] += processes == 2
        numbers["stopped_at_one_step"] += processes == 2 and len(set(saved)) == 1
        if numbers["right_status"] < numbers["signals"]:
            print(ended)
    at_once = _second(folder / "second", folder / "cache")
    everything = (
        numbers["right_status"] == numbers["saved_the_current_step"] == count
        and numbers["stopped_at_one_step"] == numbers["pairs"]
    )
    return numbers | {
        "slowest_s": round(slowest, 2),
        "second_signal_s": round(at_once, 2),
        "reached": everything and at_once < 1,
    }


def _stopped(run_dir: Path, cache: Path, number: int, processes: int) -> tuple[list[tuple[int, str]], float]:
    """Status and output of each process after one got a signal in the middle of training, and the seconds from then
    on.
    """
    port = _free_port()
    flags = (
        ["--coordinator", f"localhost:{port}", "--num-processes", str(processes), "--process-id"] if processes else []
    )
    started = [start(run_dir, cache, *LONG, *flags, *([str(i)] if flags else [])) for i in range(max(processes, 1))]
    _until(run_dir, 3, started[0])
    begin = time.perf_counter()
    started[-1].send_signal(number)
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs)], time.perf_counter() - begin


def _second(run_dir: Path, cache: Path) -> float:
    """Seconds from the second of two signals, sent into the first compilation, to the end of the process."""
    process = start(run_dir, cache / "empty", *LONG)
    assert process.stdout is not None
    for line in process.stdout:
        if "parameters" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    begin = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    return time.perf_counter() - begin if process.returncode in (143, -signal.SIGTERM) else float("inf")


def _until(run_dir: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while max(logged(run_dir), default=0) < step:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(process.communicate()[0][-3000:])
        time.sleep(0.05)


def _newest(run_dir: Path) -> int:
    """The step of the newest checkpoint, as its manifest says."""
    manifests = (run_dir / "checkpoints").glob("*/manifest.json")
    return max(json.loads(path.read_text(encoding="utf-8"))["step"] for path in manifests)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    run("R4", __doc__ or "", 50, measure)
