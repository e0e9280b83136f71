"""A contributor's first mistake under the suite's settings is explained."""

import jax.numpy as jnp
import pytest


def report_of(item: pytest.Item, function) -> pytest.TestReport:
    """The report of a test that calls the function."""
    call = pytest.CallInfo.from_call(function, "call")
    return item.ihook.pytest_runtest_makereport(item=item, call=call)


def test_an_implicit_broadcast_under_the_suite_is_reported_with_the_hint(request):
    report = report_of(request.node, lambda: jnp.ones((5, 3)) * jnp.ones(3))
    assert report.failed
    (hint,) = [text for title, text in report.sections if title == "hint"]
    assert "x * scale[None]" in hint
    assert "CONTRIBUTING.md" in hint


def test_other_errors_have_no_hint(request):
    report = report_of(request.node, lambda: jnp.ones((5, 3)) @ jnp.ones(4))
    assert report.failed
    assert "hint" not in [title for title, _ in report.sections]
