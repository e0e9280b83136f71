"""Results of `bench.gpu` and `bench.gpu.train` in the README: a section on GPUs, a plot of attention for each device.

    python -m bench.gpu.report          from bench/results/*/gpu.json and runs/*.json; `python -m bench report` too

Nothing in the section is written by hand; without a result there is none.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from bench.gpu.__main__ import means
from bench.machine import RESULTS
from bench.race import OURS

README = RESULTS.parents[1] / "README.md"
BEGIN, END = "<!-- made by `python -m bench.gpu.report` -->\n", "<!-- made until here -->\n"
# The heading after the section.
BEFORE = "## Tests\n"


def section(folder: pathlib.Path) -> str:
    """The Markdown of one device."""
    result = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    about, sections = result["about"], result["sections"]
    versions = ", ".join(
        f"{name} {version}" for name, version in about["versions"].items() if name in ("jax", "torch", "tokamax")
    )
    lines = [
        f"**{about['device']}**, {about['date'][:10]}, {versions}; [all rows](bench/results/{folder.name}/gpu.md)."
    ]
    for name, unit in (("copy", "GB/s"), ("product", "TFLOP/s")):
        found = [row for row in sections.get("machine", []) if row["case"].startswith(name) and unit in row]
        lines += [f"The device's own {row['case']}: {row[unit]:,.0f} {unit}." for row in found]
    lines += _listed("Attention over the grid of the FlashAttention-3 paper", means(sections.get("attention", [])))
    if (folder / "attention.svg").exists():
        lines += ["", f"![TFLOP/s of attention by length](bench/results/{folder.name}/attention.svg)"]
    lines += _listed("Norms", _norms(sections.get("norms", [])))
    return "\n".join([*lines, *_steps(sections.get("steps", [])), *_runs(folder / "runs")]) + "\n"


def _listed(title: str, items: list[str]) -> list[str]:
    return ["", f"{title}:", "", *(f"- {item}" for item in items)] if items else []


def _norms(rows: list[dict[str, Any]]) -> list[str]:
    """The range, over the shapes, of each pass's share of the copy's bandwidth and of XLA's time."""
    found = []
    for way in ("forward", "backward"):
        passes = [row[way] for row in rows if way in row]
        for what, values in (
            ("of the copy's bandwidth", [x["of copy"] for x in passes if "of copy" in x]),
            ("times as fast as XLA", [x["times ours"]["xla"] for x in passes if "xla" in x.get("times ours", {})]),
        ):
            found += (
                [f"{way}: {min(values):.2f} to {max(values):.2f} {what}, over {len(values)} shapes"] if values else []
            )
    return found


def _steps(rows: list[dict[str, Any]]) -> list[str]:
    """A table of whole train steps: a line for each model, a column for each contender."""
    rows = [row for row in rows if OURS in row.get("tokens/s", {})]
    if not rows:
        return []
    rivals = list(dict.fromkeys(name for row in rows for name in row["times ours"]))
    lines = ["", "Whole train steps, bfloat16; a rival's column says how many times our time it takes:", ""]
    lines += ["| model | tokens/s | MFU | " + " | ".join(rivals) + " |", "|---|---|---|" + "---|" * len(rivals)]
    for row in rows:
        share = f"{row['MFU'][OURS]:.0%}" if OURS in row.get("MFU", {}) else ""
        ratios = [f"{row['times ours'][name]:.2f}" if name in row["times ours"] else "" for name in rivals]
        lines.append(f"| {row['case']} | {row['tokens/s'][OURS]:,.0f} | {share} | " + " | ".join(ratios) + " |")
    return lines


# The numbers of a run's summary that say how good its model is.
TOLD = ("val_loss", "psnr", "codebook_usage", "sample_accuracy", "sample_frechet", "classifier_accuracy")


def _runs(folder: pathlib.Path) -> list[str]:
    """Models trained there, each with its samples where they are a picture."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        told = ", ".join(f"{name} {summary[name]:.4g}" for name in TOLD if name in summary)
        lines.append(f"{path.stem}: {summary['steps']:,} steps in {summary['seconds']:,.0f} s, {told}")
    pictures = [
        f"![Samples of {path.stem}]({path.relative_to(README.parent).as_posix()})"
        for path in sorted(folder.glob("maskgit*.png"))
    ]
    return [*_listed("Trained there, by `python -m bench.gpu.train`", lines), *([""] if pictures else []), *pictures]


def with_section(readme: str, text: str) -> str:
    """The README with this section in the place of the one that it has, if any; without, if the text is empty."""
    readme = re.sub(rf"{re.escape(BEGIN)}.*?{re.escape(END)}\n", "", readme, flags=re.DOTALL)
    made = f"{BEGIN}\n## On a GPU\n\n{text}\n{END}\n" if text else ""
    if readme.count(BEFORE) != 1:
        raise ValueError(
            f"README.md must have one line {BEFORE.strip()!r}, the heading after the section: it has "
            f"{readme.count(BEFORE)}"
        )
    return readme.replace(BEFORE, made + BEFORE)


def curves(rows: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, int, str], dict[str, list[tuple[int, float]]]]]:
    """For each (direction, head_dim, mask) of the grid: TFLOP/s by length of each contender."""
    panels: dict[tuple[str, int, str], dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        if found := re.fullmatch(r"(\w+) D(\d+) T(\d+) (\w+)", row["case"]):
            panel = panels.setdefault((found[1], int(found[2]), found[4]), {})
            for name, rate in row.get("TFLOP/s", {}).items():
                panel.setdefault(name, []).append((int(found[3]), rate))
    for key in sorted(panels):
        yield key, {name: sorted(points) for name, points in panels[key].items()}


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """The grid as a picture: a row for each direction and mask, a column for each head_dim."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = dict(curves(rows))
    down = sorted({(way, mask) for way, _, mask in panels}, reverse=True)
    across = sorted({dim for _, dim, _ in panels})
    figure = Figure(figsize=(4.2 * len(across), 2.8 * len(down)), layout="constrained")
    axes = figure.subplots(len(down), len(across), squeeze=False)
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    for (row, (way, mask)), (column, dim) in ((a, b) for a in enumerate(down) for b in enumerate(across)):
        axis = axes[row, column]
        for name, points in panels.get((way, dim, mask), {}).items():
            bold = 2.5 if name == OURS else 1.2
            axis.plot(
                *zip(*points), label=name, color=f"C{names.index(name)}", linewidth=bold, marker="o", markersize=3
            )
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{way}, {mask}, head_dim {dim}", fontsize=9)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("TFLOP/s")
    axes[-1, 0].set_xlabel("length")
    labels = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=4, fontsize=8)
    # The same numbers give the same file, whose text can be searched.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "eqxgen"}):
        figure.savefig(path, metadata={"Date": None})


def readme() -> str:
    """The README with the sections of all measured devices."""
    texts = [section(path.parent) for path in sorted(RESULTS.glob("*/gpu.json"))]
    return with_section(README.read_text(encoding="utf-8"), "\n".join(texts))


def plots() -> None:
    """attention.svg of each measured device."""
    for path in sorted(RESULTS.glob("*/gpu.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))["sections"].get("attention", [])
        if dict(curves(rows)):
            plot(rows, path.with_name("attention.svg"))


def main() -> int:
    plots()
    README.write_text(readme(), encoding="utf-8")
    print(f"{README.name}: {len(list(RESULTS.glob('*/gpu.json')))} devices")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
