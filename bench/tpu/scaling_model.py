"""How well a train step would scale, from what `bench.tpu.scaling` read in compiled programs and the published rates of
chips.

  python -m bench.tpu.scaling_model        prints the tables of docs/scaling.md

Weak scaling: every chip keeps its batch. A prediction and no measurement; docs/scaling.md says what it assumes.
"""

import json
from typing import Any, NamedTuple

from bench.tpu.scaling import OUT
from train import maskgit

MFU = 0.4
"""Assumed share of the peak rate at which a chip computes when it waits for nobody."""
HOP = 1e-6
"""Assumed seconds per hop of an exchange."""
COUNTS = (8, 16, 64, 256, 1024, 4096)


class Chip(NamedTuple):
    """What is published of a chip.

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
    """Efficiency where nothing overlaps, and where all exchange hides behind computation."""
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
    if chips > inside:  # each chip's part of the gradients goes round the slices
        slices = chips / inside
        exchange += 2 * (slices - 1) / slices * 4 * row["parameters"] / inside / chip.network
    return compute / (compute + exchange), min(1.0, compute / exchange)


def main() -> None:
    rows = json.loads(OUT.read_text())["rows"]
    print(
        "| topology | mesh | MB sent by a chip in a step | exchanges run | GiB of state and batch | GiB in all "
        "|\n|---|---|---|---|---|---|"
    )
    for row in rows:
        runs = sum(kind["runs"] for kind in row["collectives"].values())
        memory = f"{row['GiB of state and batch']:.2f} | {row['GiB per device']:.2f}"
        print(f"| {row['topology']} | `{row['mesh']}` | {row['sent_per_device'] / 1e6:,.0f} | {runs} | {memory} |")
    print(
        "\n| chip | mesh as in | "
        + " | ".join(f"{count:,}" for count in COUNTS)
        + " |\n"
        + "|---" * (len(COUNTS) + 2)
        + "|"
    )
    for row in rows:
        cells = [" to ".join(f"{100 * value:.0f}" for value in predict(row, count)) for count in COUNTS]
        print(f"| {row['topology'].split(':')[0]} | `{row['mesh']}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
