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
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checks import CHECKS, last

GROUPS = ("wrong", "refused", "hours")
HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reliability.faults", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=HERE.parents[2], help="top of the checkout to check")
    parser.add_argument("--rows", type=int, nargs="*", default=sorted(CHECKS), help="numbers of rows")
    parser.add_argument(
        "--folder", type=Path, help="folder to work in, whose runs are used again; by default a new one"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the results; without --rows faults.json")
    given, begin = parser.parse_args(), time.perf_counter()
    checkout, rows = given.checkout.resolve(), []
    with tempfile.TemporaryDirectory() as made:
        for row in _rows(given.rows, checkout, (given.folder or Path(made)).resolve()):
            rows.append(row)
            print(f"{row['row']:2} {'held  ' if row['held'] else 'failed'} {row['came']}", flush=True)
    out = given.out or (None if len(rows) < len(CHECKS) else _results() / "faults.json")
    if out is not None:
        from bench.reliability.common import about, write

        held = sum(row["held"] for row in rows)
        rows.sort(key=lambda row: row["row"])
        write(out, {"commit": _commit(checkout), "held": held, "of": len(rows), "rows": rows, **about(begin)})
    return 0 if all(row["held"] for row in rows) else 1


def _rows(numbers: list[int], checkout: Path, top: Path) -> Iterator[dict[str, Any]]:
    """Results of checks, each in a process of its own; an error that a check does not expect fails it."""
    # The checkout's packages come first; this one is found as `faults`, for a checkout has a `bench` of its own.
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{HERE.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"EQXGEN_CHECKOUT": str(checkout), "XDG_CACHE_HOME": str(top / "cache"), "JAX_PLATFORMS": "cpu"}
    environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
    top.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "faults", "--child", *map(str, numbers)]
    with subprocess.Popen(line, cwd=top, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for number, said in zip(numbers, process.stdout or ()):
            held, came = json.loads(said)
            known, shown = CHECKS[number], came.replace(str(top), "FOLDER").replace(str(checkout), "CHECKOUT")
            yield {
                "row": number,
                "kind": known.kind,
                "right": known.right,
                "held": held,
                "came": " ".join(shown.split()),
            }


def child(numbers: list[int]) -> None:
    """Runs checks in forks of this process, which has imported the checkout's packages and has no devices; prints the
    result of each.
    """
    import equinox  # noqa: F401
    import jax  # noqa: F401

    import eqxgen

    checkout = os.environ["EQXGEN_CHECKOUT"]
    assert str(eqxgen.__file__).startswith(checkout), f"{eqxgen.__file__} is not of {checkout}"
    for number in numbers:
        folder = Path(str(number)).resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        result, errors = folder.with_suffix(".json"), folder.with_suffix(".txt")
        result.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            os.chdir(folder)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            result.write_text(json.dumps(CHECKS[number].look(folder)))
            os._exit(0)
        os.waitpid(process, 0)
        print(result.read_text() if result.exists() else json.dumps([False, _error(errors.read_text())]), flush=True)


def _error(said: str) -> str:
    """The line of the error that ended a process."""
    lines = re.findall(r"^[\w.]+(?:Error|Operation|Exception)\b.*", said, re.M)
    return lines[-1] if lines else last(said)


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
        child([int(number) for number in sys.argv[2:]])
    else:
        sys.exit(main())
