"""Predicted scaling of a train step, from the collectives of `bench.tpu.scaling` and the chips' published rates.

  python -m bench.tpu.scaling_model        prints the tables of docs/scaling.md; `python -m bench report` writes them

Weak scaling: every chip keeps its batch. A prediction, not a measurement; docs/scaling.md has the assumptions.
"""

import json
from typing import Any, NamedTuple

from bench.machine import RESULTS
from train import maskgit

OUT = RESULTS / "tpu" / "scaling.json"

MFU = 0.4
"""Assumed share of the peak rate at which a chip computes without waiting."""
HOP = 1e-6
"""Assumed seconds per hop of an exchange."""
COUNTS = (8, 16, 64, 256, 1024, 4096)


class Chip(NamedTuple):
    """Published rates of a chip.

    Attributes:
        flops: peak rate in bfloat16, per second.
        link: bytes per second of one link, one way.
        axes: of the torus; a chip has two links along each.
        slice: chips that links connect; more are joined by the data centre's network.
        network: bytes per second of a chip's share in that network.
    """

    flops: float
    link: float
    axes: int
    slice: int
    network: float


CHIPS = {"v5e": Chip(197e12, 45e9, 2, 256, 3.1e9), "v5p": Chip(459e12, 90e9, 3, 8960, 6.2e9)}


def flops_per_chip(row: dict[str, Any]) -> float:
    """Of a step: 6 per parameter and token, 2 more as the blocks are computed again, and attention's products."""
    model = maskgit.PRESETS["imagenet256"].model
    tokens = row["batch"] * 257
    attention = 12 * model.depth * 257 * model.dim * tokens
    return 8 / 6 * (6 * row["parameters"] * tokens + attention) / row["devices"]


def predict(row: dict[str, Any], chips: int) -> tuple[float, float]:
    """Efficiency without overlap of exchange and computation, and with full overlap."""
    chip = CHIPS[row["topology"].split(":")[0]]
    compute = flops_per_chip(row) / (MFU * chip.flops)
    inside = min(chips, chip.slice)
    side = round(inside ** (1 / chip.axes))
    # Rings that are not closed, below 16 chips along an axis (v5e) or 4 (v5p), carry in one direction what closed ones
    # carry in two.
    ways = 2 if side >= (16 if chip.axes == 2 else 4) else 1
    grown = (inside - 1) / inside / ((row["devices"] - 1) / row["devices"])
    runs = sum(kind["runs"] for kind in row["collectives"].values())
    exchange = row["sent_per_device"] * grown / (ways * chip.axes * chip.link) + runs * side * HOP
    if chips > inside:  # the sum of each chip's part of the gradients over the slices
        slices = chips / inside
        exchange += 2 * (slices - 1) / slices * 4 * row["parameters"] / inside / chip.network
    return compute / (compute + exchange), min(1.0, compute / exchange)


def tables() -> tuple[str, str]:
    """The tables of docs/scaling.md: the bytes sent, and the predicted efficiency."""
    rows = json.loads(OUT.read_text(encoding="utf-8"))["rows"]
    sent = [
        ["topology", "mesh", "MB sent by a chip in a step", "exchanges run", "GiB of state and batch", "GiB in all"]
    ]
    efficiency = [["chip", "mesh as in", *(f"{count:,}" for count in COUNTS)]]
    for row in rows:
        mesh, runs = f"`{row['mesh']}`", str(sum(kind["runs"] for kind in row["collectives"].values()))
        memory = f"{row['GiB of state and batch']:.2f}", f"{row['GiB per device']:.2f}"
        sent.append([row["topology"], mesh, f"{row['sent_per_device'] / 1e6:,.0f}", runs, *memory])
        cells = (" to ".join(f"{100 * value:.0f}" for value in predict(row, count)) for count in COUNTS)
        efficiency.append([row["topology"].split(":")[0], mesh, *cells])
    return _markdown(sent), _markdown(efficiency)


def _markdown(rows: list[list[str]]) -> str:
    head, *rest = (f"| {' | '.join(row)} |\n" for row in rows)
    return head + "|---" * len(rows[0]) + "|\n" + "".join(rest)


if __name__ == "__main__":
    print("\n".join(tables()))
