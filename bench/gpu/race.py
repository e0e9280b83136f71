"""Contenders in one process, timed in turns, and what they are told: when to stop, and who is out."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

# A contender queues its work this many times and waits for the last.
Side = Callable[[int], None]


class Clock:
    """Seconds of a time budget that are left."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()


@dataclasses.dataclass(frozen=True)
class Turn:
    """One row's turn on the device.

    `start` is told each contender's name before it gets the device, so that whoever watches knows who stopped it;
    `without` holds those that stopped it before, each with what happened.
    """

    clock: Clock
    start: Callable[[str], None] = lambda name: None
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def attempt(self, name: str, function: Callable[[], Any]) -> tuple[Any, str | None]:
        """(What the function returns, None), or (None, why the contender has no result)."""
        if name in self.without:
            return None, self.without[name]
        if self.clock.left() < 0:
            return None, "the time budget"
        self.start(name)
        try:
            return function(), None
        except (
            Exception
        ) as error:  # A rival that is not installed or refuses a shape leaves its column empty; the row goes on.
            return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]


def jax_side(function: Callable, *arrays: Any) -> Side:
    """A jitted function of arrays as a contender, compiled here."""
    compiled = jax.jit(function).lower(*arrays).compile()

    def run(calls: int) -> None:
        result = compiled(*arrays)
        for _ in range(calls - 1):
            result = compiled(*arrays)
        jax.block_until_ready(result)

    return run


def torch_side(function: Callable[[], Any]) -> Side:
    """A function without arguments as a contender on PyTorch's device."""
    import torch

    def run(calls: int) -> None:
        for _ in range(calls):
            function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def race(sides: dict[str, Side], seconds: float, turn: Turn, rounds: int = 9) -> dict[str, float]:
    """The median milliseconds of a call of each, over rounds in an order that turns; about `seconds` in all."""
    names = list(sides)
    calls = {}
    for name in names:
        turn.start(name)
        sides[name](2)
        start = time.perf_counter()
        sides[name](1)
        each = max(time.perf_counter() - start, 1e-6)
        calls[name] = max(1, min(200, int(seconds / (rounds * len(names) * each))))
    times: dict[str, list[float]] = {name: [] for name in names}
    for n in range(rounds):
        first = n % max(len(names), 1)
        for name in names[first:] + names[:first]:
            turn.start(name)
            start = time.perf_counter()
            sides[name](calls[name])
            times[name].append(1e3 * (time.perf_counter() - start) / calls[name])
    return {name: statistics.median(t) for name, t in times.items()}


def try_sides(makers: dict[str, Callable[[], Side]], turn: Turn) -> tuple[dict[str, Side], dict[str, str]]:
    """The contenders that can be made and run, and why the others cannot."""
    sides, reasons = {}, {}

    def warm(make: Callable[[], Side]) -> Side:
        side = make()
        side(1)
        return side

    for name, make in makers.items():
        side, reason = turn.attempt(name, lambda make=make: warm(make))
        if reason is None:
            sides[name] = side
        else:
            reasons[name] = reason
    return sides, reasons


def compare(makers: dict[str, Callable[[], Side]], turn: Turn, seconds: float) -> dict[str, Any]:
    """A row: milliseconds of each contender, how many times ours they take, and why some were left out."""
    sides, reasons = try_sides(makers, turn)
    times = race(sides, seconds, turn)
    ratios = {n: t / times["ours"] for n, t in times.items() if n != "ours"} if "ours" in times else {}
    return {"ms": times, "times ours": ratios, "left out": reasons}
