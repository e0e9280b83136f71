"""Models on explicit, automatic and manual mesh axes."""

import json

import pytest

from tests.devices import printed


def test_every_model_and_its_gradient_runs_on_every_kind_of_mesh_axes():
    failed = printed("tests.models.model_meshes", timeout=3000)
    assert set(failed) >= {"explicit", "manual"}
    if any(failed.values()):
        pytest.fail(json.dumps(failed, indent=1))


def test_a_users_own_step_trains_on_explicit_axes_as_on_one_device_in_every_layout():
    found = printed("tests.models.explicit_steps", timeout=3000)
    assert set(found) == {"data", "fsdp", "tensor"}
    assert max(found.values()) < 1e-6
