"""Answers of published implementations as small files, for parity where they are not installed.

A subject is a module beside this one with a function `cases()` that runs the published code (imported inside it) and
returns `{case: {name: array}}`: the inputs, the weights under that library's names, what came out. `python -m
tests.oracles SUBJECT...` writes its `SUBJECT.npz`; `nox -s parity` installs the libraries and holds the files against
them again.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
# Real data sets, for the few cases that need one.
DATA = Path(os.environ.get("EQXGEN_DATA") or FOLDER.parents[2] / "shared" / "data")
Cases = dict[str, dict[str, np.ndarray]]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Takes the stand-ins out of `sys.modules` that a subject puts there for packages that its published code imports:
    another subject, or a test, may have the packages.
    """
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in {*sys.modules} - before:
            if getattr(sys.modules[name], "__spec__", None) is None:
                del sys.modules[name]


def load(subject: str) -> Cases:
    """The cases of a subject as they were written."""
    found: Cases = {}
    with np.load(FOLDER / f"{subject}.npz", allow_pickle=False) as stored:
        for path in stored.files:
            case, name = path.rsplit("/", 1)
            found.setdefault(case, {})[name] = stored[path]
    found.pop("about")
    return found
