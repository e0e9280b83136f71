"""Summary of the kernels of a pass, its JSON and its Markdown table."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from .count import Row

Summary = dict[str, Any]
NAME = "schedule.json"
KEY = ("chip", "op", "case", "seq", "head_dim", "phase", "by")
COLUMNS = {
    "tile": "bundles of a tile",
    "MXU": "matrix slots",
    "fullest": "fullest unit",
    "spills": "spill slots",
    "matrix": "matrix work over least",
    "visits": "visits",
    "total": "bundles x visits",
    "ratio": "over splash's",
    "outside": "bundles outside",
    "bytes": "bytes over least",
    "once": "with each block once",
    "compute": "bundles, ms",
    "memory": "bytes, ms",
    "bound": "bound",
}


def summary(rows: Sequence[Row], outside: Sequence[Row], least: float | None = None) -> Summary:
    """The kernels of one pass together; the tile is that of the kernel with most bundles.

    Args:
        outside: XLA's operations of the same program, with the copies between the kernels.
        least: bundles of the matrix products of the pass if nothing is computed twice or masked away.
    """
    main = max(rows, key=lambda x: x.total)
    tile = main.tile
    compute, memory = sum(x.compute for x in rows), sum(x.memory for x in rows)
    total, copied = sum(x.total for x in rows), sum(x.bytes for x in rows)
    over_least = lambda n: round(n / sum(x.least_bytes for x in rows), 3) if copied else None
    units = {unit: round(share, 3) for unit, share in tile.filled.items()}
    return {
        "tile": tile.bundles,
        "MXU": units["MXU"],
        "fullest": max(units, key=lambda x: units[x]),
        "spills": tile.spills,
        "matrix": round(sum(x.least for x in rows) / least, 2) if least and rows[0].pallas else None,
        "visits": sum(sum(b.visits for b in x.bodies if b.least) or x.tile.visits for x in rows),
        "total": total,
        "outside": sum(x.total for x in outside),
        "bytes": over_least(copied),
        "once": over_least(sum(x.once_bytes for x in rows)),
        "compute": round(compute * 1e3, 4),
        "memory": round(memory * 1e3, 4) if copied else None,
        "bound": ("bundles" if compute > memory else "bytes") if copied else None,
        "exact": all(x.exact for x in rows),
        "units": units,
        "kernels": [_kernel(x) for x in rows] if rows[0].pallas else [],
    }


def _kernel(row: Row) -> Summary:
    bodies = [{k: v for k, v in dataclasses.asdict(x).items() if k != "filled"} for x in row.bodies]
    return {"name": row.name, "code": row.code, "total": row.total, "bytes": row.bytes, "bodies": bodies}


def read(folder: pathlib.Path | None) -> list[Summary]:
    """The summaries of `schedule.json`, none without the file."""
    path = folder / NAME if folder else None
    return json.loads(path.read_text(encoding="utf-8"))["schedules"] if path and path.exists() else []


def merged(old: Sequence[Summary], found: Sequence[Summary]) -> list[Summary]:
    """The summaries with those of the same key replaced."""
    return list({_key(x): x for x in (*old, *found)}.values())


def write(folder: pathlib.Path, found: Sequence[Summary]) -> None:
    """`schedule.json` and `schedule.md`, with the rows that other runs wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(merged(read(folder), found), key=_key)
    lines = ",\n".join(json.dumps(x) for x in rows)
    # An interrupted run leaves the last whole file.
    part = folder / f"{NAME}.part"
    part.write_text(f'{{"schedules": [\n{lines}\n]}}\n', encoding="utf-8")
    part.replace(folder / NAME)
    (folder / "schedule.md").write_text(markdown(rows), encoding="utf-8")


def _key(row: Summary) -> tuple[str, ...]:
    return tuple(str(row[k]) for k in KEY)


def markdown(rows: Sequence[Summary]) -> str:
    """A table for each chip and op."""
    parts = [
        "# Schedules of the TPU kernels\n",
        "libtpu's own schedule, compiled without a TPU by `python -m bench.tpu_schedule`. It is no timing: a bundle is"
        " one clock if nothing stalls, and bytes take their time at the full bandwidth of main memory.\n",
        "A tile is the part of a kernel with most bundles over the problem. `matrix slots` are the share that its"
        " products fill of the matrix units' slots, from the first of them to the last; `fullest unit` has the largest"
        " such share; `spill slots` store and load registers.\n",
        "`splash` is the best of a small grid of blocks, of queries, keys and keys of a part; `visits` are executions"
        " of all tiles; the least matrix work is that of 2 products forward and 5 backward over the pairs that the mask"
        " allows; `bundles outside` are those of XLA's operations in the same program (both passes). `~` marks an upper"
        " bound. `bytes over least` counts a block again each time it is read; `with each block once` does not.\n",
    ]
    groups = dict.fromkeys((x["chip"], x["op"]) for x in rows)
    for chip, op in groups:
        keys = ["case", *(["seq", "head_dim"] if op == "attention" else []), "phase", "by"]
        parts.append(f"## {chip}, {op}\n")
        shown = {k: name for k, name in COLUMNS.items() if op == "attention" or k != "ratio"}
        parts.append("| " + " | ".join([*keys, *shown.values()]) + " |\n" + "|---" * (len(keys) + len(shown)) + "|")
        best = _best(y for y in rows if (y["chip"], y["op"]) == (chip, op))
        rival = {_problem(x): x["total"] for x in best if x["by"].startswith("splash")}
        for x in best:
            ratio = round(x["total"] / rival[_problem(x)], 3) if x["by"] == "ours" and _problem(x) in rival else None
            parts[-1] += "\n| " + " | ".join(_cell(x | {"ratio": ratio}, k) for k in (*keys, *shown)) + " |"
        parts[-1] += "\n"
    return "\n".join(parts)


def _best(rows: Any) -> list[Summary]:
    """Splash attention with its best blocks alone."""
    best: dict[Any, Summary] = {}
    for x in rows:
        key = _problem(x), x["by"].split(" ")[0]
        if key not in best or x["total"] < best[key]["total"]:
            best[key] = x
    return list(best.values())


def _problem(row: Summary) -> tuple[str, ...]:
    return _key(row)[:-1]


def _cell(row: Summary, key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if key == "MXU":
        return f"{value:.0%}"
    if key == "total" and not row["exact"]:
        return f"~{value:,}"
    return f"{value:,}" if key in ("tile", "spills", "visits", "total", "outside") else str(value)
