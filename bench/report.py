"""Tables of the results: every Markdown file of bench/results, the README's section on GPUs, the tables of docs.

    python -m bench report

The numbers come from the JSON files in bench/results alone. One reader takes each of their formats: `suite.json`, as
pytest-benchmark writes it in `nox -s bench`, and the older `attention.json`, `norm.json` and `layers.json`.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bench.machine import RESULTS
from bench.race import OURS

DOCS = RESULTS.parents[1] / "docs"
TARGET = 1.1


class Row(NamedTuple):
    """One benchmark.

    Attributes:
        case: its name and parameters.
        ms: our median time, None for a row of facts alone.
        ratios: by column, whose name has the direction: "torch / ours", above 1 ours is faster, or "ours / torch".
        spreads: the quartiles of these ratios over the rounds, where they were kept.
        facts: numbers other than times.
        part: file of the benchmark, such as `ops/bench_norms.py`, under whose name its table is.
    """

    case: str
    ms: float | None
    ratios: dict[str, float]
    spreads: dict[str, tuple[float, float]]
    facts: dict[str, Any]
    part: str = ""


def row_of(case: str, info: dict[str, Any], part: str = "") -> Row:
    """A row of pytest-benchmark's `extra_info`."""
    found = {f"{name} / {OURS}": ratio for name, ratio in info.get("times ours", {}).items()}
    spreads = {column: (ratio["low"], ratio["high"]) for column, ratio in found.items()}
    facts = {name: value for name, value in info.items() if isinstance(value, int | float)}
    medians = {column: ratio["median"] for column, ratio in found.items()}
    return Row(case, info.get("ms", {}).get(OURS), medians, spreads, facts, part)


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a file of results, in any of the formats."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if "benchmarks" in content:
        return [
            row_of(row["name"].removeprefix("bench_"), row["extra_info"], row["fullname"].partition("::")[0])
            for row in content["benchmarks"]
        ]
    if "results" in content:
        return [
            _phase(f"{row.get('case') or row['layer']}, {phase}", found)
            for row in content["results"]
            for phase, found in row.items()
            if isinstance(found, dict)
        ]
    return [_flat(case, found) for case, found in content.items()]


def _phase(case: str, found: dict[str, Any]) -> Row:
    ratios = {f"{name} / {OURS}": ratio for name, ratio in found.get("times ours", {}).items()}
    ratios |= {f"{OURS} / {name}": ratio for name, ratio in found.get("ours over", {}).items()}
    return Row(case, found["median ms"][OURS], ratios, {}, {})


def _flat(case: str, found: dict[str, float]) -> Row:
    ratios = {name: value for name, value in found.items() if name.endswith(f"/ {OURS}")}
    facts = {name: value for name, value in found.items() if name not in ratios and not name.endswith(" ms")}
    return Row(case, found.get("ours ms"), ratios, {}, facts)


def page(rows: list[Row]) -> str:
    """Our times and the ratios in Markdown, a table for each part."""
    parts = {row.part: [other for other in rows if other.part == row.part] for row in rows}
    titles = (f"## {pathlib.Path(part).stem.removeprefix('bench_')}\n\n" if part else "" for part in parts)
    made = "\n".join(title + table(part) for title, part in zip(titles, parts.values()))
    return f"{made}\nMedian ratios, with quartiles where kept; bold: ours takes more than {TARGET} times as long.\n"


def table(rows: Iterable[Row]) -> str:
    """One table; a ratio with our time more than `TARGET` times the rival's is bold."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row.ratios))
    head = ["case", "ours ms", *columns] + ["facts"] * any(row.facts for row in rows)
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = ["" if row.ms is None else f"{row.ms:.4g}", *(_ratio(row, column) for column in columns)]
        facts = ", ".join(f"{name} {value:.4g}" for name, value in row.facts.items())
        lines.append([row.case, *cells, facts][: len(head)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _ratio(row: Row, column: str) -> str:
    if column not in row.ratios:
        return ""
    ratio = row.ratios[column]
    ours_over = ratio if column.startswith(f"{OURS} /") else 1 / ratio
    slow = ours_over > TARGET and not column.startswith(f"{OURS} bfloat16")
    text = f"**{ratio:.2f}**" if slow else f"{ratio:.2f}"
    return text + (f" ({row.spreads[column][0]:.2f} to {row.spreads[column][1]:.2f})" if column in row.spreads else "")


def optimisers(content: dict[str, Any]) -> str:
    """The table of `bench.models.optimisers`."""
    about = content["about"]
    head = ["optimiser", "rate", "ms of a step", "steps", "CPU seconds", "held-out loss", "trials, loss by rate"]
    lines = [head, ["---"] * len(head)]
    for name, row in content["optimisers"].items():
        trials = ", ".join(f"{rate}: {loss:.3f}" for rate, loss in row["trials"].items())
        several = lambda values: ", ".join(f"{value:g}" for value in values)
        cells = [name, f"{row['rate']:g}", f"{row['ms of a step']:g}", f"{row['steps']:,}"]
        lines.append([*cells, several(row["CPU seconds"]), several(row["held-out loss"]), trials])
    made = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return (
        f"{made}\n{about['model']}, batches and weights alike; {about['seconds']:g} CPU seconds, all threads "
        f"together, after trials of {about['trial seconds']:g} for each rate; blocks of {about['block']} and roots or "
        f"bases every {about['every']} updates for SOAP and Shampoo; nats per token; jax {about['jax']}.\n"
    )


def with_table(text: str, made: str) -> str:
    """A document with this table in the place of the table with the same head.

    Raises:
        ValueError: the document has no such table, or several.
    """
    head = made.splitlines()[0]
    before, *after = text.split(f"{head}\n")
    if len(after) != 1:
        raise ValueError(f"the document must have one table with the head {head!r}: it has {len(after)}")
    lines = after[0].splitlines(keepends=True)
    end = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return before + made + "".join(lines[end:])


def made() -> Iterator[tuple[pathlib.Path, str]]:
    """Each file with measured tables, and its text."""
    from bench.gpu import report as gpu_report
    from bench.gpu.__main__ import table as gpu_table
    from bench.tpu import axes, context
    from bench.tpu.scaling_model import tables

    for name in ("suite", "attention", "norm", "layers"):
        for path in sorted(RESULTS.glob(f"*/{name}.json")):
            yield path.with_suffix(".md"), page(read(path))
    for path in sorted(RESULTS.glob("*/optimisers.json")):
        yield path.with_suffix(".md"), optimisers(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(RESULTS.glob("*/gpu.json")):
        yield path.with_suffix(".md"), gpu_table(json.loads(path.read_text(encoding="utf-8")))
    yield gpu_report.README, gpu_report.readme()
    scaling = (DOCS / "scaling.md").read_text(encoding="utf-8")
    for text in (*tables(), axes.table(), context.table()):
        scaling = with_table(scaling, text)
    yield DOCS / "scaling.md", scaling


def main() -> int:
    from bench.gpu import report as gpu_report

    gpu_report.plots()
    for path, text in made():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(RESULTS.parents[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
