"""Exchanges between devices in the text of a compiled program, and how often each instruction runs."""

import collections
import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
LINE = re.compile(rf"%([\w.\-]+) = (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
ARRAY = re.compile(r"\b(pred|[subf]\d+|bf16)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One exchange of a compiled program.

    Attributes:
        kind: one of `KINDS`.
        devices: that take part in it together.
        bytes: of its result; of the operand for a reduce-scatter.
        times: it runs.
    """

    kind: str
    devices: int
    bytes: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends, by rings."""
        rounds = {"all-reduce": 2.0, "collective-permute": self.devices / max(self.devices - 1, 1)}.get(self.kind, 1.0)
        return rounds * self.bytes * (self.devices - 1) / self.devices * self.times


def exchanges(text: str) -> list[Collective]:
    """The exchanges of a program's optimised HLO.

    The compiler splits some into asynchronous pieces: these share the name of a chain, and count once.
    """
    counts, found = executions(text), {}
    for lines in bodies_of(text).values():
        for line in lines:
            if not (match := LINE.search(line)):
                continue
            name, result, kind, start = match.groups()
            chain, channel = (re.search(rf"{key}=\"?\d+\"?", line) for key in ("chain_id", "channel_id"))
            arrays, devices = ARRAY.findall(result), _group(line)
            if start and kind in ("collective-permute", "all-gather"):
                arrays = arrays[1:2]  # beside its operand and numbers
            size = sum(bytes_of(*array) for array in arrays) * (devices if kind == "reduce-scatter" else 1)
            key = (kind, f"{chain.group()} {channel.group()}" if chain and channel else name)
            found.setdefault(key, Collective(kind, devices, size, counts.get(name, 1)))
    return list(found.values())


def executions(text: str) -> dict[str, int]:
    """The executions of each instruction of a compiled program, by the counts of its loops."""
    bodies, inside, calls = bodies_of(text), collections.defaultdict(list), collections.defaultdict(list)
    for body, lines in bodies.items():
        for line in lines:
            found = re.match(r" +(?:ROOT )?%([\w.\-]+) = ", line)
            if not found:
                continue
            inside[body].append(found[1])
            loop = re.search(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)", line)
            if loop:
                calls[body].append((loop[2], _turns(line, bodies[loop[1]])))
            else:
                called = re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", line)
                calls[body] += [(name, 1) for name in called if name in bodies]
    counts: dict[str, int] = collections.Counter()

    def add(name: str, times: int) -> None:
        for instruction in inside[name]:
            counts[instruction] += times
        for called, turns in calls[name]:
            add(called, times * turns)

    if entry := re.search(r"^ENTRY %([\w.\-]+)", text, re.MULTILINE):
        add(entry[1], 1)
    return dict(counts)


def bodies_of(text: str) -> dict[str, list[str]]:
    """The lines of each computation."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = bodies.setdefault(match.group(1), [])
        else:
            lines.append(line)
    return bodies


def bytes_of(dtype: str, shape: str) -> int:
    """Bytes of an array as HLO writes it."""
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return bits // 8 * math.prod(int(size) for size in shape.split(",") if size)


def _turns(line: str, condition: list[str]) -> int:
    """The turns of a loop: those that the compiler notes, or the bound of a count from 0; 1 where neither is known."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line):
        return int(known[1])
    text = "\n".join(condition)
    bound = re.search(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT", text)
    turns = bound and re.search(rf"%{re.escape(bound[1])} = s32\[\]\S* constant\((\d+)\)", text)
    return int(turns[1]) if turns else 1


def _group(line: str) -> int:
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match.group(1).count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match.group(1))
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):  # jax 0.12
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", match.group(2)))
    return 2  # a permutation
