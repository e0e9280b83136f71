"""Attention, norms and grouped products on explicit, automatic and manual mesh axes."""

import json

import pytest

from tests.devices import printed


def test_every_op_and_its_gradient_runs_on_every_kind_of_mesh_axes():
    failed = printed("tests.kernels.op_meshes", timeout=3000)
    assert "explicit, set" in failed
    if any(failed.values()):
        pytest.fail(json.dumps(failed, indent=1))
