"""Bad inputs: the row of a table, and its trial."""

import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.monitoring

# What making or folding a key compiles, in whichever test comes first.
KEYS = {
    f"jit({name})"
    for name in ("_threefry_seed", "_threefry_fold_in", "_threefry_split", "convert_element_type", "stage")
}

compiled: list[str] = []
"""Names of the programs that were compiled in this process, or taken from the cache of compiled programs."""


class Case(NamedTuple):
    """A bad input.

    Attributes:
        number: in the list of bad inputs.
        what: the test's name, in words.
        prepare: makes what it needs in an empty folder; gives the command line, "train.maskgit" first.
        says: regular expression that the one-line error must match.
        status: of the exit.
    """

    number: int
    what: str
    prepare: Callable[[Path], list[str]]
    says: str
    status: int = 1


def _watch(event: str, seconds: float, **about: str | int) -> None:
    if event.endswith("backend_compile_duration"):
        compiled.append(str(about.get("fun_name")))


jax.monitoring.register_event_duration_secs_listener(_watch)


def status_of(line: list[str]) -> int:
    """Runs `python -m` with this line in this process, as the module `__main__`; gives the exit status."""
    before = sys.argv
    sys.argv = list(line)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
            runpy.run_module(line[0], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return 0
