"""`--profile START:COUNT`: a trace of some steps, and a table of the operations that took longest."""

import collections
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax


class Row(NamedTuple):
    """An operation of the compiled program: name, line of source, time by itself in microseconds over all threads,
    number of runs.
    """

    name: str
    source: str
    micros: float
    runs: int


class Profiler:
    """Records the steps that `--profile` names, in a folder, for TensorBoard and Perfetto.

    Args:
        steps: first step and number of steps, or None.
        folder: of the trace.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        self.first, self.count = steps or (-1, 0)
        self.folder, self.running = folder, False

    def before(self, step: int, state: Any) -> None:
        """Starts with the first of the steps, once those before it are computed."""
        if step == self.first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self.folder))
            self.running = True

    def after(self, step: int, results: Any) -> str | None:
        """After the last of the steps, the table of its operations; the results are waited for."""
        if not self.running or step + 1 < self.first + self.count:
            return None
        jax.block_until_ready(results)
        self.close()
        path = newest(self.folder)
        rows = rows_of(read_trace(path))
        return f"{table(kinds_of(rows), 8)}\n\n{table(rows, 12)}\ntrace of {self.count} steps in {path.parent}"

    def close(self) -> None:
        """Ends a trace that is still being recorded."""
        if self.running:
            jax.profiler.stop_trace()
            self.running = False


def newest(folder: Path) -> Path:
    """The trace last written below a folder."""
    return max(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a trace."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)["traceEvents"]


def rows_of(events: list[dict[str, Any]]) -> list[Row]:
    """The operations by name, longest first. What an operation spends inside others, such as a loop in its body, counts
    for those.
    """
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("ph") == "M" and e["name"] == "thread_name"
    }
    by_thread: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
    # A device that has a line of its own for operations may show them on its streams again.
    lines = {thread for thread, name in threads.items() if name == "XLA Ops"}
    for event in events:
        thread = event.get("pid"), event.get("tid")
        if event.get("ph") == "X" and (thread in lines if lines else "hlo_op" in event.get("args", {})):
            by_thread[thread].append(event)
    micros: dict[str, float] = collections.defaultdict(float)
    runs: collections.Counter[str] = collections.Counter()
    sources: dict[str, str] = {}
    for name, source, alone in (found for thread in by_thread.values() for found in _alone(thread)):
        micros[name] += alone
        runs[name] += 1
        sources.setdefault(name, source)
    return sorted(
        (Row(name, sources[name], time, runs[name]) for name, time in micros.items()), key=lambda row: -row.micros
    )


def kinds_of(rows: list[Row]) -> list[Row]:
    """Rows of the same name but for a number at its end as one, longest first."""
    groups: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        groups[re.sub(r"[.\d]+$", "", row.name) or row.name].append(row)
    merged = [
        Row(f"{kind} (all {len(g)})", "", sum(r.micros for r in g), sum(r.runs for r in g))
        for kind, g in groups.items()
    ]
    return sorted(merged, key=lambda row: -row.micros)


def _alone(events: list[dict[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Name, source and own time of each event of one thread, whose events are within or after one another."""
    events = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    alone = [event["dur"] for event in events]
    open_: list[int] = []
    for i, event in enumerate(events):
        while open_ and events[open_[-1]]["ts"] + events[open_[-1]]["dur"] <= event["ts"]:
            open_.pop()
        if open_:
            alone[open_[-1]] -= event["dur"]
        open_.append(i)
    for event, time in zip(events, alone):
        arguments: Mapping[str, Any] = event.get("args", {})
        yield event["name"], _short(str(arguments.get("source", ""))), max(time, 0.0)


def _short(source: str) -> str:
    """A line of source without the folders before the last."""
    return "/".join(source.split("/")[-2:])


def table(rows: list[Row], count: int) -> str:
    """The longest operations: share of the time, milliseconds, runs, name, and the line of source that asked for it."""
    total = sum(row.micros for row in rows) or 1.0
    lines = [f"{'share':>6}  {'ms':>9}  {'runs':>6}  {'operation':36}  source"]
    for row in rows[:count]:
        numbers = f"{row.micros / total:6.1%}  {row.micros / 1000:9.2f}  {row.runs:6}"
        lines.append(f"{numbers}  {row.name[:36]:36}  {row.source}".rstrip())
    if len(rows) > count:
        rest = sum(row.micros for row in rows[count:])
        lines.append(f"{rest / total:6.1%}  {rest / 1000:9.2f}  {'':6}  {len(rows) - count} more")
    return "\n".join(lines)
