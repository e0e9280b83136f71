"""The long tables, which `nox -s full` runs and the suite leaves out."""

import os

import pytest

FULL = os.environ.get("EQXGEN_FULL") == "1"
full = pytest.mark.skipif(not FULL, reason="of the long tables: set EQXGEN_FULL=1, as `nox -s full` does")
