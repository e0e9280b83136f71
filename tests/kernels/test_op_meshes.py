"""Attention and norms on explicit, automatic and manual mesh axes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.reliability.device_parity import FLAGS

ROOT = Path(__file__).parents[2]


def test_every_op_and_its_gradient_runs_on_every_kind_of_mesh_axes():
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"}
    line = [sys.executable, "-m", "tests.kernels.op_meshes"]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    failed = json.loads(done.stdout[done.stdout.index("{") :])  # XLA prints there too
    assert "explicit, set" in failed
    if any(failed.values()):
        pytest.fail(json.dumps(failed, indent=1))
