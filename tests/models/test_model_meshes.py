"""Models on explicit, automatic and manual mesh axes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.reliability.device_parity import FLAGS

ROOT = Path(__file__).parents[2]


def printed(program: str) -> Any:
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"}
    line = [sys.executable, "-m", program]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout[done.stdout.index("{") :])  # XLA prints there too


def test_every_model_and_its_gradient_runs_on_every_kind_of_mesh_axes():
    failed = printed("tests.models.model_meshes")
    assert set(failed) >= {"explicit", "manual"}
    if any(failed.values()):
        pytest.fail(json.dumps(failed, indent=1))


def test_a_users_own_step_trains_on_explicit_axes_as_on_one_device_in_every_layout():
    found = printed("tests.models.explicit_steps")
    assert set(found) == {"data", "fsdp", "tensor"}
    assert max(found.values()) < 1e-6
