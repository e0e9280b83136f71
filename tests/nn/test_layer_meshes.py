"""Layers on explicit, auto and manual mesh axes."""

import json

import pytest

from tests.devices import printed


def test_every_layer_and_its_gradient_runs_on_every_kind_of_mesh_axes():
    failed = printed("tests.nn.layer_meshes", timeout=3000)
    assert set(failed) >= {"explicit", "manual", "experts"}
    if any(failed.values()):
        pytest.fail(json.dumps(failed, indent=1))
