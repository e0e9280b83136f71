"""Files that libtpu writes for each kernel, and the control flow in them."""

import dataclasses
import os
import pathlib
import re
import tempfile

UNITS = ("MXU", "XLU", "VALU", "VPOP", "EUP", "VLOAD", "FILL", "VSTORE", "SPILL", "SALU")
SLOTS, BUNDLES = "-final_hlo-static-per-bundle-utilization.txt", "-final_bundles.txt"
PASSES = "final_bundles|final_hlo.*"
DELAY = 5  # a branch takes effect after four bundles
_ARGS = "LIBTPU_INIT_ARGS"


class DumpError(ValueError):
    """A dump without the files or lines that the schedule is read from."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Bundles `start` to `stop`, exclusive: a loop with its `trips` where the text has them, or a conditional block."""

    start: int
    stop: int
    trips: int | None = None

    def __contains__(self, bundle: int) -> bool:
        return self.start <= bundle < self.stop

    def holds(self, other: "Range") -> bool:
        return self != other and self.start <= other.start and other.stop <= self.stop


@dataclasses.dataclass(frozen=True)
class Program:
    """The bundles of a kernel: slots filled per unit and bundle, capacities, loops, conditional blocks."""

    name: str
    capacity: tuple[int, ...]
    slots: list[tuple[int, ...]]
    loops: list[Range]
    blocks: list[Range]


def folder() -> pathlib.Path:
    """The folder of this process's dumps. libtpu reads its flags once, at the first compilation of a process."""
    found = re.search(r"--xla_jf_dump_to=(\S+)", os.environ.get(_ARGS, ""))
    if not found:
        path = tempfile.mkdtemp(prefix="tpu_schedule_")
        # All other passes as text take longer than the compilation.
        flags = f"--xla_jf_dump_to={path} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex={PASSES}"
        os.environ[_ARGS] = f"{os.environ.get(_ARGS, '')} {flags}".strip()
        return pathlib.Path(path)
    return pathlib.Path(found[1])


def programs(path: pathlib.Path) -> list[Program]:
    """All kernels of a dump, in order of their compilation.

    Raises:
        DumpError: no kernel in the folder, or a file without its part.
    """
    slots = sorted(path.glob(f"*{SLOTS}"))
    if not slots:
        hint = "libtpu must not be loaded before the first measurement; start a new process"
        raise DumpError(f"the dump folder must have files *{SLOTS}, got none in {path}; {hint}")
    return [program(x, _bundles_of(x)) for x in slots]


def program(slots: pathlib.Path, bundles: pathlib.Path) -> Program:
    """A kernel from its two files."""
    capacity, filled = _slots(slots)
    depth, loops, blocks = _control(bundles.read_text(errors="replace"))
    if depth != len(filled):
        raise DumpError(f"both files of {slots.name} must have as many bundles, got {len(filled)} and {depth}")
    name = re.sub(r"^\d+-|-\d+$", "", slots.name.removesuffix(SLOTS))
    return Program(name, capacity, filled, loops, blocks)


def _bundles_of(slots: pathlib.Path) -> pathlib.Path:
    stem = re.sub(r"-\d+$", "", slots.name.removesuffix(SLOTS))
    found = [
        x
        for x in slots.parent.glob(f"*{BUNDLES}")
        if x.name.startswith(stem + "-") and not x.name.endswith(f"schedule-analysis_{BUNDLES[1:]}")
    ]
    if len(found) != 1:
        raise DumpError(f"{slots.name} must have one file {stem}-*{BUNDLES}, got {len(found)}")
    return found[0]


def _slots(path: pathlib.Path) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    text = path.read_text()
    rows = [tuple(map(int, x.split())) for x in text.splitlines() if re.fullmatch(r"[\d\s]*\d[\d\s]*", x)]
    if "\nMATMUL, MATPUSH," in text:
        # Since 0.0.52 libtpu has a column for the loads of a matrix unit's operand, which were not counted before.
        rows = [(x[0], *x[2:]) for x in rows]
    if not rows or {len(x) for x in rows} != {len(UNITS)}:
        raise DumpError(f"{path.name} must have {len(UNITS)} numbers per line, one for each of {', '.join(UNITS)}")
    return rows[0], rows[1:]


_LINE = re.compile(r"^ *(0x[0-9a-f]+|0) +(?:[A-Z]{2})?: ", re.MULTILINE)
_REGION = re.compile(r"Start(?:/End empty)? region (\d+)")
_BRANCH = re.compile(r"sbr\.rel \((!?)%\w+\) target = \$region(\d+)")
_TRIPS = re.compile(r"scmp\.\w+\.\w+\.totalorder %\w+, (\d+) /\* loop exit test")


def _control(text: str) -> tuple[int, list[Range], list[Range]]:
    """The number of bundles, the loops and the conditional blocks."""
    cuts = [m.start() for m in _LINE.finditer(text)]
    lines = [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)])]
    start = {int(m): i for i, x in enumerate(lines) for m in _REGION.findall(x)}
    trips = {i: int(m[1]) for i, x in enumerate(lines) if (m := _TRIPS.search(x))}
    heads = [i for i, x in enumerate(lines) if re.match(r" *(0x[0-9a-f]+|0) +LB:", x)]
    loops, blocks = [], []
    for i, line in enumerate(lines):
        for _, region in _BRANCH.findall(line):
            stop = start.get(int(region), 0)
            if stop > i:
                blocks.append(Range(min(i + DELAY, stop), stop))
            else:
                loops.append((i + DELAY, int(region)))
    # A loop is entered at a marked head; loops nest, so that the innermost ends first.
    found = []
    for stop, _ in loops:
        open_heads = [h for h in heads if h < stop and all(h != f.start for f in found)]
        if open_heads:
            head = open_heads[-1]
            tests = [n for i, n in trips.items() if head <= i < stop and not any(i in f for f in found)]
            found.append(Range(head, min(stop, len(lines)), tests[-1] if tests else None))
    return len(lines), found, blocks
