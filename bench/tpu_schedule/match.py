"""The conditional blocks of a compiled kernel among those of its grid."""

import dataclasses
import itertools
from collections.abc import Sequence

from .dump import UNITS, Program, Range
from .grid import Grid, Products

MXU = UNITS.index("MXU")
VECTOR = [UNITS.index(x) for x in ("MXU", "XLU", "VALU", "VSTORE")]


@dataclasses.dataclass(frozen=True)
class Matched:
    """Blocks in the order of the program, with the executions of each over all steps, or None, and its matrix
    products; the products of the code outside of them are last.
    """

    blocks: list[Range]
    visits: tuple[int | None, ...]
    products: tuple[Products, ...]


def matched(program: Program, grid: Grid) -> Matched | None:
    """The blocks of a kernel as they are in its grid, None where that is not known.

    The compiler may keep no condition of a settled block, which is part of the code around it then, or gone. What is
    left must be nested as the program's blocks are, with products in the same ones.
    """
    settled = [i for i, x in enumerate(grid.settled) if x]
    for count in range(len(settled) + 1):
        blocks = _widest(program, len(grid.visits) - count)
        if len(blocks) < len(grid.visits) - count:
            continue
        nested = _nested(program, blocks)
        ways = filter(None, (_without(grid, gone) for gone in itertools.combinations(settled, count)))
        fitting = {
            (visits, products)
            for parents, visits, products in ways
            if (parents, tuple(map(bool, products[:-1]))) == nested
        }
        if fitting:
            return Matched(blocks, *fitting.pop()) if len(fitting) == 1 else None
    return None


def unmatched(program: Program) -> Matched:
    """All blocks, of unknown executions."""
    blocks = _widest(program)
    return Matched(blocks, (None,) * len(blocks), ((),) * (len(blocks) + 1))


def _widest(program: Program, count: int | None = None) -> list[Range]:
    """The conditional blocks of a kernel: those inside of the pipeline's block for one grid step, or all of them.

    The pipeline has blocks of its own, with less vector work; the `count` widest are the kernel's.
    """
    vectors = {x: sum(program.slots[i][j] for i in range(x.start, x.stop) for j in VECTOR) for x in program.blocks}
    wide = [x for x, work in vectors.items() if work]
    step = max(wide, key=lambda x: x.stop - x.start, default=None)
    inside = [x for x in wide if step and step.holds(x)]
    chosen = inside if program.loops else wide
    chosen = chosen if count is None else sorted(chosen, key=lambda x: -vectors[x])[:count]
    return sorted(chosen, key=lambda x: x.start)


def innermost(ranges: Sequence[Range], bundle: int) -> Range | None:
    """The shortest of the ranges that has the bundle."""
    return min((x for x in ranges if bundle in x), key=lambda x: x.stop - x.start, default=None)


def _without(
    grid: Grid, gone: tuple[int, ...]
) -> tuple[tuple[int | None, ...], tuple[int | None, ...], tuple[Products, ...]] | None:
    """Parent, visits and products of the other blocks; None where a block would stay in one that never runs."""
    kept = [i for i in range(len(grid.visits)) if i not in gone]
    places = {None: None, **{i: place for place, i in enumerate(kept)}}
    products = {i: list(grid.products[-1 if i is None else i]) for i in places}

    def around(i: int | None) -> int | None:
        while i in gone:
            i = grid.parents[i]
        return i

    for i in gone:
        outer = grid.parents[i]
        if grid.visits[i]:
            products[around(outer)] += grid.products[i]
        elif any(grid.parents[x] == i for x in kept):
            return None
    parents = tuple(places[around(grid.parents[i])] for i in kept)
    return parents, tuple(grid.visits[i] for i in kept), tuple(tuple(products[i]) for i in (*kept, None))


def _nested(program: Program, blocks: list[Range]) -> tuple[tuple[int | None, ...], tuple[bool, ...]]:
    """The parent of each block, and whether it multiplies outside of those in it."""
    owners = [innermost(blocks, i) for i in range(len(program.slots))]
    multiplies = {owner for owner, slots in zip(owners, program.slots) if slots[MXU]}
    outer = [innermost([x for x in blocks if x.holds(block)], block.start) for block in blocks]
    return tuple(None if x is None else blocks.index(x) for x in outer), tuple(x in multiplies for x in blocks)
