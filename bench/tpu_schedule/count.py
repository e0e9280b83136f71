"""Counts of a kernel's schedule: its bodies, and all bundles over the problem."""

import dataclasses
from collections.abc import Sequence

from .chips import Chip
from .dump import UNITS, Program, Range
from .grid import Grid
from .match import MXU, innermost, matched, unmatched

FILL, SPILL = UNITS.index("FILL"), UNITS.index("SPILL")


@dataclasses.dataclass(frozen=True)
class Body:
    """A conditional block of a kernel, or the code of a step outside of them (the last body).

    `bundles` of one execution; `span` from its first to its last matrix operation, all without one; `filled` in the
    span, a share of each unit's slots; `spills` slots that store and load registers; `least` bundles of its matrix
    products if every unit streams a row per bundle; `visits` executions, of all grid steps.
    """

    bundles: int
    span: int
    filled: dict[str, float]
    spills: int
    least: float
    visits: int

    @property
    def matrix(self) -> bool:
        return self.filled["MXU"] > 0


@dataclasses.dataclass(frozen=True)
class Row:
    """A kernel over the whole problem: one of Pallas, or an operation of XLA, whose bytes are not counted.

    `code` bundles of its text; `steps` of its grid; `total` bundles times visits; `least` of them for the products;
    `spills` slots of one pass over its text; `bytes` copied to and from main memory, `once_bytes` with each block
    copied once, `least_bytes` with each operand and result; `compute` and `memory` seconds of both at the chip's clock
    and bandwidth. The only stalls counted are those of a body whose bundles issue products faster than the units take
    rows. `exact` is false where a count is an upper bound: every block is then taken to run in every step.
    """

    name: str
    pallas: bool
    code: int
    steps: int
    bodies: list[Body]
    total: int
    least: float
    spills: int
    bytes: int
    once_bytes: int
    least_bytes: int
    compute: float
    memory: float
    exact: bool

    @property
    def bound(self) -> str:
        """The longer of both."""
        return "bundles" if self.compute > self.memory else "bytes"

    @property
    def tile(self) -> Body:
        """The body with most bundles over the problem."""
        return max(self.bodies, key=lambda x: x.bundles * x.visits)


def row(program: Program, chip: Chip, grid: Grid | None = None, *, pallas: bool = True) -> Row:
    """The counts of a program; without its grid every conditional block runs in each step of its loop."""
    steps = grid.steps if grid else max((x.trips or 1 for x in program.loops), default=1)
    found = (matched(program, grid) if grid else None) or unmatched(program)
    blocks, products = found.blocks, found.products
    visits = [steps if n is None else n for n in found.visits]
    owners = [innermost(blocks, i) for i in range(len(program.slots))]
    bodies = [
        _body(program, [i for i, x in enumerate(owners) if x == block], _least(work, chip), times)
        for block, work, times in zip([*blocks, None], products, [*visits, steps])
    ]
    ran = dict.fromkeys([*blocks, None], 0.0)
    for i, owner in enumerate(owners):
        ran[owner] += _trips(program, owner, i, steps)
    total = sum(once * times for once, times in zip(ran.values(), [*visits, steps]))
    known = all(x.trips for x in program.loops) and None not in found.visits
    copied, once, least_bytes = (grid.bytes, grid.once_bytes, grid.least_bytes) if grid else (0, 0, 0)
    cores = chip.cores if grid and grid.parallel else 1
    stalls = sum(max(x.least - once, 0) * x.visits for x, once in zip(bodies, ran.values()))
    return Row(
        name=program.name,
        pallas=pallas,
        code=len(program.slots),
        steps=steps,
        bodies=bodies,
        total=round(total),
        least=sum(x.least * x.visits for x in bodies),
        spills=sum(x[FILL] + x[SPILL] for x in program.slots),
        bytes=copied,
        once_bytes=once,
        least_bytes=least_bytes,
        compute=(total + stalls) / (cores * chip.clock),
        memory=copied / (cores * chip.bandwidth),
        exact=grid is not None and known,
    )


def _body(program: Program, bundles: list[int], least: float, visits: int) -> Body:
    slots = [program.slots[i] for i in bundles] or [(0,) * len(UNITS)]
    at = [i for i, x in enumerate(slots) if x[MXU]] or [0, len(slots) - 1]
    span = slots[at[0] : at[-1] + 1]
    filled = {u: sum(x) / (c * len(span)) for u, x, c in zip(UNITS, zip(*span), program.capacity)}
    return Body(len(bundles), len(span), filled, sum(x[FILL] + x[SPILL] for x in slots), least, visits)


def _trips(program: Program, owner: Range | None, bundle: int, steps: int) -> float:
    """Executions of a bundle in one of its owner, which is a block or a grid step."""
    outer = max(program.loops, key=lambda x: x.stop - x.start, default=None)
    if owner is None and outer and bundle not in outer:
        return 1 / steps
    times = 1
    for loop in program.loops:
        if bundle in loop and loop != outer and (owner is None or owner.holds(loop)):
            times *= loop.trips or 1
    return times


def _least(products: Sequence[tuple[int, int, int]], chip: Chip) -> float:
    """Bundles of products if each matrix unit holds a square of one operand and takes a row of the other."""
    squares = lambda n: -(-n // chip.side)
    rows = sum(min(m * squares(n), n * squares(m)) * squares(k) for m, k, n in products)
    return rows / chip.matrix_units
