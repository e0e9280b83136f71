"""The long tables, which `nox -s full` runs and the suite leaves out."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

FULL = os.environ.get("EQXGEN_FULL") == "1"
REASON = "of the long tables: set EQXGEN_FULL=1, as `nox -s full` does"
full = pytest.mark.skipif(not FULL, reason=REASON)


def rows(names: Iterable[str], *long: str) -> list[Any]:
    """Names of a table as parameters, those in `long` for `nox -s full` alone."""
    names = list(names)
    if unknown := set(long) - set(names):
        raise ValueError(f"long must name rows of the table: got {sorted(unknown)}")
    return [pytest.param(name, marks=full if name in long else (), id=name) for name in names]
