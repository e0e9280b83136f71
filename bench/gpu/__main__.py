"""Correctness of every GPU kernel, and its speed against rivals in the same process, in one command.

    python -m bench.gpu                       under 8 minutes; writes bench/results/<device>/gpu.json and gpu.md
    python -m bench.gpu --quick               correctness alone, about a minute
    python -m bench.gpu --tiny --out /tmp/x   the machinery, in sizes for a CPU

Random data; interleaved rounds in one process (`bench.race`); the device's copy bandwidth and matrix rate are measured
in the same run. Each section has a share of `--minutes`, its unused rest goes to the next, and a row that would not fit
is listed as left out. `bench.gpu.rows` runs in a process of its own: after a hang or a crash the next process goes on
without that contender.
"""

import argparse
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time

from bench.gpu.book import QUICK, SHARES, Book
from bench.machine import folder


def supervise(command: list[str], book: Book, minutes: float, patience: float) -> int:
    """Run `command --minutes <left>` until it ends by itself or the time is up; returns the number of starts.

    A contender that holds the device for longer than `patience` seconds is stopped.
    """
    end, starts = time.monotonic() + 60 * minutes, 0
    while starts == 0 or end - time.monotonic() > 30:
        starts += 1
        left = (end - time.monotonic()) / 60
        # PyTorch needs memory of the same device.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        with subprocess.Popen([*command, "--minutes", f"{left:.3f}"], env=environment) as child:
            why = _watch(child, book.now, patience, end + 20)
        book.load()
        if why is None:
            break
        book.stopped(why)
        # A failure before the first case would repeat.
        if book.result["stopped"][-1]["case"] == "":
            break
    return starts


def _watch(child: subprocess.Popen, now: pathlib.Path, patience: float, end: float) -> str | None:
    """Reason of a bad end of a process, or None. It is killed after `patience` seconds without progress, or at the
    end of the time.
    """
    began = time.time()
    while child.poll() is None:
        time.sleep(0.1)
        last = max(began, now.stat().st_mtime if now.exists() else 0.0)
        if time.time() - last > patience or time.monotonic() > end:
            child.kill()
            child.wait()
            return "the end of the time" if time.monotonic() > end else f"no answer for {patience:.0f} seconds"
    return None if child.returncode == 0 else f"the process ended with {child.returncode}"


def table(result: dict) -> str:
    """The rows in Markdown, after the geometric means."""
    about = result["about"]
    lines = [f"# {about['device']}, {about['date']}", "", "`times ours` above 1: ours is faster.", ""]
    lines += [f"- {line}" for line in means(result["sections"].get("attention", []))]
    lines += [
        f"- stopped the process: {x['name'] or 'no contender'} at {x['case']} ({x['why']})" for x in result["stopped"]
    ]
    for name, rows in result["sections"].items():
        lines += ["", f"## {name}", ""]
        for row in rows:
            flat = ", ".join(f"{k}: {_flat(v)}" for k, v in row.items() if k not in ("case", "ms") and v != {})
            lines.append(f"- {row['case']}: {flat}")
    return "\n".join(lines) + "\n"


def means(rows: list[dict]) -> list[str]:
    """The geometric mean of `times ours` over the grid, for each direction and rival."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for rival, ratio in row.get("times ours", {}).items():
            found.setdefault((row["case"].split()[0], rival), []).append(ratio)
    mean = lambda ratios: math.exp(sum(map(math.log, ratios)) / len(ratios))
    return [
        f"{way}: {rival} takes {mean(x):.2f} times ours, geometric mean of {len(x)}"
        for (way, rival), x in found.items()
    ]


def _flat(x: object) -> str:
    return "; ".join(f"{k} {_flat(v)}" for k, v in x.items()) if isinstance(x, dict) else str(x)


def wrong(result: dict) -> list[str]:
    """The kernels that are not right, each with its case."""
    return [
        f"{name} at {row['case']}"
        for rows in result["sections"].values()
        for row in rows
        for name, right in row.get("right", {}).items()
        if not right
    ]


def device() -> str | None:
    """The name of the GPU, or None."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout.strip() else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.5, help="the whole run's time budget")
    parser.add_argument("--quick", action="store_true", help="correctness alone")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU: the machinery alone")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument(
        "--patience", type=float, default=100.0, help="seconds after which a contender that does not answer is stopped"
    )
    parser.add_argument("--out", type=pathlib.Path, help="where the results go; bench/results/<device> by default")
    options = parser.parse_args(arguments)
    name = device()
    if name is None and not (options.tiny and options.out):
        parser.error("no GPU: nvidia-smi names none; --tiny --out FOLDER checks the machinery without one")
    book = Book(options.out or folder(str(name)))
    book.clear()
    only = QUICK if options.quick else options.only
    command = [sys.executable, "-m", "bench.gpu.rows", "--out", str(book.path.parent), "--only", *only]
    supervise([*command, "--tiny"] if options.tiny else command, book, options.minutes, options.patience)
    book.now.unlink(missing_ok=True)
    if not book.result["sections"]:
        print("nothing was measured:", book.result["stopped"])
        return 2
    text = table(book.result)
    (book.path.parent / "gpu.md").write_text(text, encoding="utf-8")
    print(text)
    for line in wrong(book.result):
        print("wrong:", line)
    return int(bool(wrong(book.result)))


if __name__ == "__main__":
    raise SystemExit(main())
