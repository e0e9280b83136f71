"""Attention and norms on explicit mesh axes, mapped over their independent axes."""

import json

import pytest

from tests.devices import printed


def test_calls_on_explicit_axes_run_their_kernels_on_each_device_and_equal_one_device_without_gathering(monkeypatch):
    monkeypatch.setenv("EQXGEN_INTERPRET", "1")
    found = printed("tests.kernels.explicit_places")
    assert found["cases"] >= 4
    if found["failed"]:
        pytest.fail(json.dumps(found["failed"], indent=1))
