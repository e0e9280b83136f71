"""The race of `ours` against its rivals: contenders of one process, timed in interleaved rounds.

A round times each contender once, and the order rotates from round to round. A rival's ratio is its time over ours in
the same round, so that a slow spell of the machine touches both; reported are the median and the quartiles.
"""

import dataclasses
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

OURS = "ours"
PHASES = ("forward", "backward", "forward and backward")
MOST_CALLS, MOST_ROUNDS = 200, 50


class Side(NamedTuple):
    """A contender: `call` queues its work once, `wait` blocks until the result of a call is ready."""

    call: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready

    def seconds(self, calls: int = 1) -> float:
        """Mean of some calls queued together."""
        start = time.perf_counter()
        for _ in range(calls - 1):
            self.call()
        self.wait(self.call())
        return (time.perf_counter() - start) / calls


Makers = Mapping[str, Callable[[], Side]]


def jax_side(function: Callable, *arrays: Any, phase: str = PHASES[0], cotangent: Any = None) -> Side:
    """A jitted function of arrays in one of `PHASES`: its result, its gradients, or both."""
    if phase == PHASES[0]:
        return Side(functools.partial(jax.jit(function), *arrays))
    if phase == PHASES[1]:
        pull = jax.jit(lambda *x: jax.vjp(function, *x)[1])(*arrays)
        return Side(functools.partial(jax.jit(lambda pull, dy: pull(dy)), pull, cotangent))
    return Side(functools.partial(jax.jit(functools.partial(both, function)), cotangent, *arrays))


def both(function: Callable, cotangent: Any, *arrays: Any) -> tuple[Any, tuple[Any, ...]]:
    """The result and the gradients of all arrays."""
    y, pull = jax.vjp(function, *arrays)
    return y, pull(cotangent)


def torch_side(
    function: Callable[[], Any], inputs: Sequence[Any] = (), cotangent: Any = None, phase: str = PHASES[0]
) -> Side:
    """PyTorch's contender: a function without arguments, or the gradients of `inputs`."""
    import torch

    def wait(_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    if phase == PHASES[0]:
        return Side(torch.no_grad()(function) if inputs else function, wait)
    if phase == PHASES[1]:
        y = function()
        return Side(lambda: torch.autograd.grad(y, inputs, cotangent, retain_graph=True), wait)
    return Side(lambda: torch.autograd.grad(function(), inputs, cotangent), wait)


class Clock:
    """Seconds left of a time budget, by default without an end."""

    def __init__(self, seconds: float = math.inf):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()


@dataclasses.dataclass(frozen=True)
class Turn:
    """One row's use of the device.

    Attributes:
        clock: time budget; without any left no contender starts.
        start: receives each contender's name before it runs, for a supervisor of the process.
        without: contenders that are left out, each with the reason.
    """

    clock: Clock = dataclasses.field(default_factory=Clock)
    start: Callable[[str], None] = lambda name: None
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def attempt(self, name: str, function: Callable[[], Any]) -> tuple[Any, str | None]:
        """The function's result and None, or None and the reason of the failure."""
        if name in self.without:
            return None, self.without[name]
        if self.clock.left() < 0:
            return None, "the time budget"
        self.start(name)
        try:
            return function(), None
        except Exception as error:  # A rival that is absent or refuses a shape leaves an empty column.
            return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]


def prepare(makers: Makers, turn: Turn, warm: bool = True) -> tuple[dict[str, Side], dict[str, str]]:
    """The contenders that run, compiled and warm, and the reasons of the others."""
    sides, reasons = {}, {}

    def made(make: Callable[[], Side]) -> Side:
        side = make()
        if warm:
            side.seconds()
        return side

    for name, make in makers.items():
        side, reason = turn.attempt(name, functools.partial(made, make))
        if reason is None:
            sides[name] = side
        else:
            reasons[name] = reason
    return sides, reasons


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Each name once a round, in an order that rotates."""
    for n in range(rounds if names else 0):
        first = n % len(names)
        yield from (*names[first:], *names[:first])


def calls_of(each: Mapping[str, float], seconds: float, rounds: int) -> dict[str, int]:
    """Calls of each contender per round: all rounds together take about `seconds`, in equal shares."""
    share = seconds / max(rounds * len(each), 1)
    return {name: max(1, min(MOST_CALLS, int(share / max(one, 1e-6)))) for name, one in each.items()}


def race(sides: Mapping[str, Side], seconds: float, turn: Turn, rounds: int = 9) -> dict[str, list[float]]:
    """Milliseconds of a call of each contender in each round; about `seconds` in all."""

    def timed(name: str, calls: int = 1) -> float:
        turn.start(name)
        return sides[name].seconds(calls)

    calls = calls_of({name: timed(name) for name in sides}, seconds, rounds)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for name in turns(list(sides), rounds):
        times[name].append(1e3 * timed(name, calls[name]))
    return times


def ratios(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Paired ratios of each rival's time over ours: median and quartiles over the rounds; above 1 ours is faster."""
    if OURS not in times:
        return {}
    return {name: _spread(t / o for t, o in zip(found, times[OURS])) for name, found in times.items() if name != OURS}


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in times.items()}


def compare(makers: Makers, turn: Turn, seconds: float, rounds: int = 9) -> dict[str, Any]:
    """One row: milliseconds of each contender, median ratios to ours, and the contenders left out with reasons."""
    sides, reasons = prepare(makers, turn)
    times = race(sides, seconds, turn, rounds)
    found = {name: ratio["median"] for name, ratio in ratios(times).items()}
    return {"ms": medians(times), "times ours": found, "left out": reasons}


def in_rounds(benchmark: Any, makers: Makers, seconds: float, least: int, once: bool = False) -> dict[str, Any]:
    """A race inside the rounds of pytest-benchmark's fixture, which times `ours`; the rivals run between its rounds.

    Args:
        benchmark: the fixture; disabled, it runs each contender once.
        makers: the contenders, `ours` among them.
        seconds: duration of all rounds together.
        least: number of rounds at least, even if they take longer.
        once: exactly `least` rounds of one call each, without warm-up: compilation, imports.

    Returns:
        Rows of `extra_info`: "ms", "times ours" and "left out".

    Raises:
        RuntimeError: `ours` cannot run.
    """
    sides, reasons = prepare(makers, Turn(), warm=not once)
    if OURS in reasons:
        raise RuntimeError(f"ours must run: {reasons[OURS]}")
    calls, rounds = dict.fromkeys(sides, 1), least
    if not (once or benchmark.disabled):
        each = {name: side.seconds() for name, side in sides.items()}
        rounds = max(least, min(MOST_ROUNDS, int(seconds / sum(each.values()))))
        calls = calls_of(each, seconds, rounds)
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = turns(list(sides), rounds)

    def rivals() -> None:
        """The contenders up to our next turn."""
        for name in order:
            if name == OURS:
                return
            times[name].append(1e3 * sides[name].seconds(calls[name]))

    if not benchmark.disabled:
        rivals()
    ours = _queued(sides[OURS], calls[OURS])
    benchmark.pedantic(ours, teardown=rivals, rounds=rounds, iterations=calls[OURS])
    if benchmark.disabled:
        return {"left out": reasons}
    times[OURS] = [1e3 * time for time in benchmark.stats.stats.data]
    return {"ms": medians(times), "times ours": ratios(times), "left out": reasons}


def _queued(side: Side, calls: int) -> Callable[[], None]:
    """A contender's call; every `calls`-th call waits for its result."""
    count = itertools.count(1)

    def call() -> None:
        result = side.call()
        if next(count) % calls == 0:
            side.wait(result)

    return call


def _spread(values: Iterator[float]) -> dict[str, float]:
    found = sorted(values)
    low, _, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return {"median": statistics.median(found), "low": low, "high": high}
