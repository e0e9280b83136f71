"""Checks of the faults of the version before, on any checkout.

  python -m bench.reliability.faults                                  # this checkout; writes faults.json
  python -m bench.reliability.faults --checkout OLD --out before.json # another, such as a worktree of commit 6eb89fd
  python -m bench.reliability.faults --rows 6 22                      # some rows alone

A check runs in a process of its own, whose packages are those of the checkout, and prints its row, `held` or `failed`,
and what came. The status is 0 where all rows held.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .checks import CHECKS, last

GROUPS = ("wrong", "refused", "hours")
HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reliability.faults", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=HERE.parents[2], help="top of the checkout to check")
    parser.add_argument("--rows", type=int, nargs="*", default=sorted(CHECKS), help="numbers of rows")
    parser.add_argument("--out", type=Path, help="JSON file of the results; without --rows faults.json")
    given, begin = parser.parse_args(), time.perf_counter()
    checkout, rows = given.checkout.resolve(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in given.rows:
            rows.append(_row(number, checkout, Path(folder)))
            print(f"{number:2} {'held  ' if rows[-1]['held'] else 'failed'} {rows[-1]['came']}", flush=True)
    out = given.out or (None if len(rows) < len(CHECKS) else _results() / "faults.json")
    if out is not None:
        from bench.reliability.common import about, write

        held = sum(row["held"] for row in rows)
        write(out, {"commit": _commit(checkout), "held": held, "of": len(rows), "rows": rows, **about(begin)})
    return 0 if all(row["held"] for row in rows) else 1


def _row(number: int, checkout: Path, top: Path) -> dict[str, Any]:
    """Result of a check in a process of its own; an error that it does not expect fails the row."""
    folder = top / str(number)
    folder.mkdir()
    # The checkout's packages come first; this one is found as `faults`, for a checkout has a `bench` of its own.
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{HERE.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"EQXGEN_CHECKOUT": str(checkout), "XDG_CACHE_HOME": str(top / "cache"), "JAX_PLATFORMS": "cpu"}
    environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
    line = [sys.executable, "-m", "faults", "--child", str(number)]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    lines = done.stdout.splitlines()
    held, came = json.loads(lines[-1]) if not done.returncode and lines else (False, _error(done.stderr))
    known = CHECKS[number]
    came = " ".join(str(came).replace(str(folder), "FOLDER").replace(str(checkout), "CHECKOUT").split())
    return {"row": number, "kind": known.kind, "right": known.right, "held": held, "came": came}


def _error(said: str) -> str:
    """The line of the error that ended a process."""
    lines = re.findall(r"^[\w.]+(?:Error|Operation|Exception)\b.*", said, re.M)
    return lines[-1] if lines else last(said)


def child(number: int) -> None:
    """Runs a check in the current folder, after a look at whose packages are imported."""
    import eqxgen

    checkout = os.environ["EQXGEN_CHECKOUT"]
    assert str(eqxgen.__file__).startswith(checkout), f"{eqxgen.__file__} is not of {checkout}"
    print(json.dumps(CHECKS[number].look(Path.cwd())))


def _commit(checkout: Path) -> str:
    line = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def _results() -> Path:
    from bench.reliability.common import RESULTS

    return RESULTS


for group in GROUPS:
    importlib.import_module(f".{group}", __package__)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]))
    else:
        sys.exit(main())
