"""An update split over virtual devices is the update of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_warn_stuck_timeout_seconds=10 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=60"
)


@pytest.fixture(scope="module")
def results():
    """Collectives of virtual devices can hang, so they run in a process that a watchdog ends."""
    env = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {FLAGS}", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "tests/devices.py"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {(row["program"], row["devices"]): row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("program", ["maskgit", "vqgan"])
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_devices_give_the_update_of_one_to_rounding(results, program, devices):
    row = results[program, devices]
    # The VQGAN's soft assignments, at temperature 0.01, and its second derivatives multiply a rounding; a wrong average is off by 1e-3 or more.
    assert row["update"] <= (2e-6 if program == "maskgit" else 5e-5)
    for name, difference in row["metrics"].items():
        assert difference <= 2e-5, name


@pytest.mark.parametrize("program", ["maskgit", "vqgan"])
def test_every_device_holds_the_same_bits(results, program):
    assert all(results[program, devices]["alike"] for devices in (1, 2, 4, 8))
