"""Programs of tests in processes of their own: virtual devices, whose collectives can hang, behind a watchdog."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.reliability.device_parity import FLAGS

ROOT = Path(__file__).parents[1]


def environment(count: int = 8, *, xla: str | None = None) -> dict[str, str]:
    """Variables of a process of some virtual devices.

    Args:
        xla: XLA's flags beside those of the devices; by default the suite's.
    """
    flags = FLAGS.replace("device_count=8", f"device_count={count}")
    return os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS'] if xla is None else xla} {flags}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }


def printed(
    program: str,
    *arguments: str,
    count: int = 8,
    xla: str | None = None,
    python: tuple[str, ...] = (),
    timeout: int = 280,
) -> Any:
    """The JSON object that a module prints last, on some virtual devices.

    Args:
        xla: see `environment`.
        python: options of the interpreter.
        timeout: in seconds.
    """
    line = [sys.executable, *python, "-m", program, *arguments]
    env = environment(count, xla=xla)
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[f"\n{done.stdout}".rindex("\n{") :])  # XLA, and runs, print before it


def printed_by_two(program: str, *arguments: str, timeout: int = 200, **variables: str) -> tuple[str, str]:
    """Output of the two processes of a module, of two virtual devices each; the last arguments are a port and the
    process's number.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    env = environment(2) | variables
    lines = [[sys.executable, "-m", program, *arguments, port, str(number)] for number in (0, 1)]
    both = [
        subprocess.Popen(line, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in lines
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in both]
    finally:
        for process in both:
            process.kill()
    for process, (_, errors) in zip(both, outputs):
        assert process.returncode == 0, errors[-3000:]
    (first, _), (second, _) = outputs
    return first, second
