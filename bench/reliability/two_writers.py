"""R7: two writers of one run folder: one wins, the other says by whom in under a second; a lock left by kill -9 stops
nobody.

  python -m bench.reliability.two_writers --folder /tmp/r7

Both start at the same moment, forked from this process. Every fifth winner is killed outright, and the next writer must
get the folder at once. At the end two real commands race, whose whole time, with the interpreter's start and the data,
is told apart.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.reliability.common import ROOT, run
from bench.reliability.small import flags
from train._errors import UserError
from train.run.lock import locked


def measure(count: int, folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = {"races": 0, "one_winner": 0, "loser_named_holder": 0, "killed": 0, "recovered": 0}
    slowest = 0.0
    for race in range(count):
        where = folder / f"race-{race}"
        where.mkdir()
        begin = time.time() + 0.05
        writers = [_start(where, begin) for _ in range(2)]
        said = {child: _first_line(lines) for child, lines in writers}
        winners = [child for child, text in said.items() if text == "won"]
        numbers["races"] += 1
        numbers["one_winner"] += len(winners) == 1
        for text in said.values():
            if text != "won":
                seconds, message = text.split(" ", 1)
                slowest = max(slowest, float(seconds))
                numbers["loser_named_holder"] += f"process {winners[0]} on {socket.gethostname()}" in message
        if race % 5 == 0:
            os.kill(winners[0], signal.SIGKILL)
            numbers["killed"] += 1
        for child, lines in writers:
            os.waitpid(child, 0)
            lines.close()
        if race % 5 == 0:
            with locked(where):
                numbers["recovered"] += 1
    command = _commands(folder / "command")
    reached = (
        numbers["one_winner"] == numbers["loser_named_holder"] == count
        and numbers["recovered"] == numbers["killed"]
        and slowest < 1
    )
    return numbers | {
        "slowest_loser_s": round(slowest, 3),
        **command,
        "reached": reached and command["command_statuses"] == [0, 1],
    }


def _start(folder: Path, begin: float) -> tuple[int, Any]:
    """A writer that tries at a moment, says what came of it, and keeps the folder for a while."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, os.fdopen(reader)
    says = os.fdopen(writer, "w", buffering=1)
    time.sleep(max(0, begin - time.time()))
    asked = time.perf_counter()
    try:
        with locked(folder):
            print("won", file=says)
            time.sleep(0.7)
    except UserError as error:
        print(time.perf_counter() - asked, error, file=says)
    os._exit(0)


def _first_line(lines: Any) -> str:
    return lines.readline().strip()


def _commands(folder: Path) -> dict[str, Any]:
    """Two real commands on one folder: the statuses in rising order, and how long the loser took in all."""
    line = [
        sys.executable,
        "-m",
        "train.maskgit",
        *flags("maskgit"),
        "--run-dir",
        str(folder),
        "--steps",
        "40",
        "--batch-size",
        "8",
    ]
    begin = time.perf_counter()
    both = [
        subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = {process: (process.communicate()[1], time.perf_counter() - begin) for process in both}
    losers = [process for process in both if process.returncode == 1]
    named = [re.search(r"is being written by process \d+ on ", ended[process][0]) is not None for process in losers]
    seconds = [ended[process][1] for process in losers]
    return {
        "command_statuses": sorted(process.returncode for process in both),
        "command_named_holder": named == [True],
        "command_loser_s": round(min(seconds, default=0.0), 1),
    }


if __name__ == "__main__":
    run("R7", __doc__ or "", 50, measure)
