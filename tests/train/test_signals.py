"""SIGINT and SIGTERM: remembered once, obeyed at once the second time, agreed on by several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from tests.devices import printed_by_two
from train.parallel import processes
from train.run.signals import StopRequest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_remembered_and_interrupts_nothing(number, status):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.agreed(1)
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 5
        while stop.received is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert stop.agreed(2)
        assert stop.status == status
    assert signal.getsignal(number) is before


# The main thread sleeps in C for a minute, as in a long compilation, where Python would hear no signal.
BUSY = """
import ctypes, sys
from train.run.signals import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    left = 60
    while left:
        left = ctypes.CDLL(None).sleep(left)
"""


def test_a_second_signal_ends_the_process_at_once_even_inside_a_compilation():
    line = [sys.executable, "-c", BUSY]
    with subprocess.Popen(
        line, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - begin < 5


def test_two_processes_share_checkpoints_a_lock_and_the_step_they_stop_at(tmp_path):
    for said in printed_by_two("tests.train.two_processes", str(tmp_path), timeout=150):
        assert "stopped at 8" in said


def test_processes_that_are_done_wait_a_day_and_more_for_the_first_to_evaluate(monkeypatch):
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **options: given.update(options))
    processes.start("localhost:1", 2, 0)
    assert given["shutdown_timeout_seconds"] >= 24 * 3600
