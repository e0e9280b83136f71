"""Contenders in one process, timed in turns, and a clock that says when to stop."""

import statistics
import time
from collections.abc import Callable
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


def jax_side(function: Callable, *arrays: Any) -> Side:
    """A jitted function of arrays as a contender, compiled here."""
    compiled = jax.jit(function).lower(*arrays).compile()

    def run(calls: int) -> None:
        for _ in range(calls):
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


def race(sides: dict[str, Side], seconds: float, rounds: int = 9) -> dict[str, float]:
    """The median milliseconds of a call of each, over rounds in an order that turns; about `seconds` in all."""
    names = list(sides)
    calls = {}
    for name in names:
        sides[name](2)
        start = time.perf_counter()
        sides[name](1)
        each = max(time.perf_counter() - start, 1e-6)
        calls[name] = max(1, min(200, int(seconds / (rounds * len(names) * each))))
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            sides[name](calls[name])
            times[name].append(1e3 * (time.perf_counter() - start) / calls[name])
    return {name: statistics.median(t) for name, t in times.items()}


def try_sides(makers: dict[str, Callable[[], Side]]) -> tuple[dict[str, Side], dict[str, str]]:
    """The contenders that can be made and run, and why the others cannot.

    A rival that is not installed or refuses a shape leaves its column empty; the row goes on.
    """
    sides, reasons = {}, {}
    for name, make in makers.items():
        try:
            side = make()
            side(1)
            sides[name] = side
        except Exception as error:
            reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
    return sides, reasons
